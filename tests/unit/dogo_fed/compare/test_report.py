"""The table, the sheet, the data and the picture of a comparison, from fixed summaries."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import pytest

from dogo_fed.compare.comparison import CellReport, Comparison, compare
from dogo_fed.compare.experiment import DOGO, OFFLINE, SOLO, Column, Method
from dogo_fed.compare.picture import draw_comparison
from dogo_fed.compare.report import difference, to_csv, to_json, to_markdown, write_comparison
from dogo_fed.compare.statistics import paired_difference
from dogo_fed.compare.traffic_picture import draw_traffic, draws_traffic
from dogo_fed.compare.variants_picture import _figure, draw_variants
from dogo_fed.contracts import PeerId
from dogo_fed.errors import CheckpointError
from dogo_fed.provenance import DataFacts
from dogo_fed.storage.peer_folder import PeerFolder
from tests.support.command_line import REPOSITORY
from tests.support.comparison_cells import PEER, made_cells, made_experiment, write_summary

SOLO_SCORES = {0: (0.800, 0.600), 1: (0.810, 0.700), 2: (0.820, 0.650)}
DOGO_SCORES = {0: (0.820, 0.590), 1: (0.832, 0.688), 2: (0.838, 0.639)}
OFFLINE_SCORES = {0: (0.815, 0.600), 1: (0.834, 0.700), 2: (0.836, 0.650)}

PAGE = REPOSITORY / "tests" / "golden" / "compare.md"


@pytest.fixture
def made(tmp_path: Path) -> Comparison:
    return comparison_in(tmp_path)


def comparison_in(out: Path, without: tuple[str, ...] = (), **changes) -> Comparison:
    experiment = made_experiment(**changes)
    cells = made_cells(experiment, out)
    by_method = {Method.SOLO: SOLO_SCORES, Method.DOGO: DOGO_SCORES, Method.OFFLINE: OFFLINE_SCORES}
    reports = []
    for cell in cells:
        outcome = "finished"
        if cell.id in without:
            outcome = "failed"
        else:
            scores = by_method[cell.column.method][cell.seed]
            write_summary(cell, {"big": scores, "small": scores})
        reports.append(
            CellReport(
                id=cell.id,
                folder=str(cell.folder),
                outcome=outcome,
                message="" if outcome == "finished" else "died of signal 9",
            )
        )
    return compare(experiment, cells, reports)


def test_the_page(made: Comparison, request: pytest.FixtureRequest) -> None:
    page = to_markdown(made)
    if request.config.getoption("--rewrite-golden"):
        PAGE.write_text(page)
    assert page == PAGE.read_text()
    assert "## pair, synthetic: kNN (top-1, %)" in page
    assert "hurts" in page.split("kNN", 1)[1]
    assert "not finished" not in page
    assert "256 KiB" in page and "nothing" in page and "1 min 00 s" in page
    assert all(len(line) < 200 or not line.startswith("|") for line in page.splitlines())


def test_columns_of_a_table_line_up(made: Comparison) -> None:
    tables: list[list[str]] = [[]]
    for line in to_markdown(made).splitlines():
        if line.startswith("|"):
            tables[-1].append(line)
        elif tables[-1]:
            tables.append([])
    assert len(tables) == 4
    for table in filter(None, tables):
        assert len({len(line) for line in table}) == 1


def test_what_hurts_is_said_as_plainly_as_what_helps(made: Comparison) -> None:
    verdicts = {
        (row.metric, row.peer): row.difference(DOGO, SOLO).verdict.value for row in made.rows
    }
    assert verdicts == {
        ("linear_top1", "big"): "helps",
        ("linear_top1", "small"): "helps",
        ("knn_top1", "big"): "hurts",
        ("knn_top1", "small"): "hurts",
    }


def test_a_student_is_judged_by_its_own_cell(tmp_path: Path) -> None:
    experiment = made_experiment(seeds=[0])
    cells = made_cells(experiment, tmp_path)
    for cell in cells:
        frozen = {"big": (0.1, 0.1), "small": (0.1, 0.1)}
        if cell.student is not None:
            frozen[cell.student] = (0.9, 0.9)
        write_summary(cell, frozen)
    rows = compare(experiment, cells, []).rows
    assert {row.peer: row.scores[OFFLINE][0] for row in rows} == {"big": 0.9, "small": 0.9}


def test_a_failed_cell_costs_a_pair_and_is_named(tmp_path: Path) -> None:
    made = comparison_in(tmp_path, without=("dogo/pair/synthetic/1",))
    page = to_markdown(made)
    assert "## Cells that are not finished\n\n- dogo/pair/synthetic/1: failed: died of" in page
    assert made.rows[0].difference(DOGO, SOLO).n == 2
    assert made.rows[0].spread(SOLO).n == 3
    assert "n=2" in page


def test_a_row_is_called_by_the_peers_own_objective(tmp_path: Path) -> None:
    experiment = made_experiment(methods=[Method.SOLO, Method.FEDX, Method.SUPERVISED])
    cells = made_cells(experiment, tmp_path)
    for cell in cells:
        write_summary(cell, {"big": (0.7, 0.6), "small": (0.7, 0.6)})
    rows = compare(experiment, cells, []).rows
    assert {row.objective for row in rows} == {"simclr"}
    assert len(rows[0].scores) == 3


def test_one_seed_has_neither_deviation_nor_interval(tmp_path: Path) -> None:
    page = to_markdown(comparison_in(tmp_path, seeds=[0]))
    row = next(line for line in page.splitlines() if line.startswith("| big"))
    assert [cell.strip() for cell in row.strip("|").split("|")][1:] == [
        "80.0", "81.5", "82.0", "+2.0 n=1", "not shown", "+0.5 n=1",
    ]  # fmt: skip


def test_all_peers_together_are_held_against_solo_and_against_central(tmp_path: Path) -> None:
    experiment = made_experiment(methods=[Method.SOLO, Method.DOGO, Method.CENTRAL])
    cells = made_cells(experiment, tmp_path, partition={"kind": "iid"})
    gains = {"solo": (0.0, 0.0), "dogo": (0.02, -0.002), "central": (0.036, 0.0)}
    for cell in cells:
        jitter = 0.0 if cell.column == SOLO else 0.0002 * (cell.seed - 1)
        big, small = (0.7 + gain + jitter for gain in gains[cell.column.name])
        write_summary(cell, {"big": (big, None), "small": (small, None)})
    made = compare(experiment, cells, [])
    (found,) = made.over_peers(made.rows, DOGO)
    assert found.alone == SOLO
    assert (found.not_below, found.safe, found.peers, found.worst) == (1, 2, 2, "small")
    assert found.way_to_central == pytest.approx(0.5)
    way = "That is 50% of the way from solo to central (+1.8 [+1.8, +1.8] n=3)."
    assert way in to_markdown(made)
    assert "dogo \u2212 central" in to_markdown(made)


def pooled_in(out: Path, central: dict[int, float]) -> Comparison:
    """Returns solo at 0.7 and dogo at 0.71, 0.72, 0.73, beside central with these scores."""
    experiment = made_experiment(methods=[Method.SOLO, Method.DOGO, Method.CENTRAL])
    cells = made_cells(experiment, out, partition={"kind": "iid"})
    for cell in cells:
        by_method = {
            "solo": dict.fromkeys(range(3), 0.7),
            "dogo": {seed: 0.71 + 0.01 * seed for seed in range(3)},
            "central": central,
        }
        found = by_method[cell.column.name].get(cell.seed)
        if found is not None:
            write_summary(cell, {"big": (found, None), "small": (found, None)})
    return compare(experiment, cells, [])


def test_the_way_to_central_is_of_the_seeds_that_all_have(tmp_path: Path) -> None:
    made = pooled_in(tmp_path, {0: 0.740, 1: 0.741})
    (found,) = made.over_peers(made.rows, DOGO)
    assert found.mean_gain.n == 3 and found.central_gain.n == 2
    assert found.way_to_central == pytest.approx(0.015 / 0.0405)
    told = "Over the 2 seeds that central has too, that is 37% of the way from solo to central ("
    assert told in to_markdown(made)


def test_without_a_gain_of_central_there_is_no_way_to_it(tmp_path: Path) -> None:
    made = pooled_in(tmp_path, {0: 0.699, 1: 0.701, 2: 0.7001})
    page = to_markdown(made)
    assert "Central is not shown to be better than solo (+0.0 [" in page
    assert "of the way" not in page
    (told, *_) = to_json(made)["over_peers"]
    assert told["method"] == "dogo" and told["alone"]["solo"]["way_to_central"] is None


def test_a_site_that_is_broken_on_purpose_does_not_dilute_the_others(tmp_path: Path) -> None:
    scores = {"solo": {"a": 0.7, "b": 0.6, "broken": 0.1}, "dogo": {"a": 0.72, "b": 0.61}}
    found = {}
    for out, left_out in (("all", []), ("but_one", ["broken"])):
        experiment = made_experiment(methods=[Method.SOLO, Method.DOGO], not_counted=left_out)
        cells = made_cells(experiment, tmp_path / out, ("a", "b", "broken"))
        for cell in cells:
            mine = {**scores["solo"], **scores[cell.column.name]}
            write_summary(
                cell, {name: (one + 0.001 * cell.seed, None) for name, one in mine.items()}
            )
        found[out] = compare(experiment, cells, [])
    (all_of_them,), (but_one,) = (made.over_peers(made.rows, DOGO) for made in found.values())
    assert (all_of_them.peers, but_one.peers, but_one.not_below) == (3, 2, 2)
    assert all_of_them.mean_gain.mean == pytest.approx(0.01)
    assert but_one.mean_gain.mean == pytest.approx(0.015)
    page = to_markdown(found["but_one"])
    assert "Not counted where peers are taken together: broken." in page
    assert "| broken: brokennet, simclr" in page and "dogo: 2 of 2 peers" in page
    assert to_json(found["but_one"])["not_counted"] == ["broken"]


SITES = [Method.PRIVATE, Method.SOLO, Method.DOGO, Method.FEDAVG, Method.CENTRAL]


def sites_in(out: Path) -> Comparison:
    """Returns a comparison of two sites with private images, 40 and 400 of them."""
    experiment = made_experiment(methods=SITES)
    cells = made_cells(experiment, out, partition={"kind": "iid"})
    scores = {"private": 0.75, "solo": 0.7, "dogo": 0.72, "fedavg": 0.71, "central": 0.8}
    for cell in cells:
        linear = scores[cell.column.name] + 0.001 * cell.seed
        moved = (100.0, 300.0) if cell.column.name == "fedavg" else (0.0, 0.0)
        both = {"big": (linear, None), "small": (linear, None)}
        write_summary(cell, both, bytes_per_step=moved)
        if cell.config.has_private("big"):
            table = "part,images,test_images\nanchors,200,0\nbig,400,9\nsmall,40,9\n"
            (cell.folder / "partition.csv").write_text(table)
    return compare(experiment, cells, [])


def test_sites_are_held_against_their_own_images_alone_too(tmp_path: Path) -> None:
    made = sites_in(tmp_path)
    private, solo = made.over_peers(made.rows, DOGO)
    assert (private.alone.name, private.not_below) == ("private", 0)
    assert (solo.alone.name, solo.not_below) == ("solo", 2)
    page = to_markdown(made)
    assert "- dogo: 0 of 2 peers are not below private" in page
    assert "- fedavg: 0 of 2 peers are not below private" in page
    heading = next(line for line in page.splitlines() if line.startswith("| peer "))
    assert heading.count("verdict") == 2


def test_variants_are_held_against_baselines_and_central_like_dogo(tmp_path: Path) -> None:
    """A variant may be the best of all, and then it is the one to judge."""
    experiment = made_experiment(methods=SITES, variants={"rare": ["exchange.every_steps=4"]})
    cells = made_cells(experiment, tmp_path, partition={"kind": "iid"})
    scores = {"private": 0.75, "solo": 0.7, "dogo": 0.72, "fedavg": 0.71, "central": 0.8}
    for cell in cells:
        linear = {**scores, "dogo-rare": 0.76}[cell.column.name] + 0.0001 * cell.seed**2
        linear += 0.0001 * (cell.column.variant is not None) * cell.seed
        write_summary(cell, {"big": (linear, None), "small": (linear, None)})
    made = compare(experiment, cells, [])
    rare = Column(Method.DOGO, "rare")
    names = ["private", "solo", "dogo", "fedavg", "central"]
    assert [one.name for one in made.references(rare)] == names
    page = to_markdown(made)
    (heading,) = (line for line in page.splitlines() if "variant of dogo" in line)
    cells_of_heading = [cell.strip() for cell in heading.strip("|").split("|")]
    assert cells_of_heading == [
        "peer", "variant of dogo", "score", "\u2212 private", "verdict", "\u2212 solo", "verdict",
        "\u2212 dogo", "\u2212 fedavg", "\u2212 central",
    ]  # fmt: skip
    (told,) = (line for line in page.splitlines() if "dogo-rare, the mean over peers" in line)
    assert "\u2212 dogo +4.0 [" in told and "\u2212 fedavg +5.0 [" in told
    assert "n=3, helps; \u2212 central \u22124.0 [" in told and told.endswith("n=3, hurts.")
    (sheet, *_) = csv.DictReader(io.StringIO(to_csv(made)))
    assert float(sheet["dogo-rare_minus_fedavg_mean"]) == pytest.approx(0.0501)
    assert sheet["dogo-rare_minus_central_verdict"] == "hurts"
    data = to_json(made)
    assert data["rows"][0]["variants"]["rare"]["minus"]["fedavg"]["verdict"] == "helps"
    of_rare = {one["method"]: one for one in data["over_peers"]}["dogo-rare"]
    assert of_rare["minus"]["central"]["mean"] == pytest.approx(-0.0399)
    assert of_rare["alone"]["solo"]["not_below"] == 2


def test_a_page_without_dogo_says_what_an_interval_is(tmp_path: Path) -> None:
    experiment = made_experiment(methods=[Method.SOLO, Method.FEDAVG])
    cells = made_cells(experiment, tmp_path)
    for cell in cells:
        linear = 0.7 + 0.01 * cell.seed * (cell.column.name == "fedavg")
        write_summary(cell, {"big": (linear, None), "small": (linear, None)})
    made = compare(experiment, cells, [])
    assert "Differences are paired by seed" in to_markdown(made)
    minus = to_json(made)["rows"][0]["methods"]["fedavg"]["minus"]
    assert minus["solo"]["mean"] == pytest.approx(0.01) and minus["solo"]["n"] == 3


def test_images_are_those_of_the_passes(tmp_path: Path) -> None:
    costs = {cost.column.name: cost for cost in sites_in(tmp_path).costs}
    assert costs["private"].images == (10 * 40, 10 * 256), "small has 40, and no anchors"
    assert costs["solo"].images == costs["dogo"].images == (10 * (128 + 40), 10 * 256)
    assert costs["central"].images == (2560, 2560)
    assert "1680 to 2560" in to_markdown(sites_in(tmp_path))


IMAGES = DataFacts(
    name="own", fingerprint="ab", test_fingerprint="cd", labels="ef", num_train=0, num_test=9,
    image_size=8, mean=(0.5,), std=(0.2,), num_classes=2, class_names=(),
)  # fmt: skip


def test_images_of_a_small_site_with_images_of_its_own_are_counted(tmp_path: Path) -> None:
    sizes = {"big": 400, "small": 20}
    peers = {
        name: {**PEER, "data": {"name": "synthetic", "options": {"size": number}}}
        for name, number in sizes.items()
    }
    experiment = made_experiment(methods=[Method.PRIVATE, Method.SOLO, Method.DOGO], seeds=[0])
    cells = made_cells(experiment, tmp_path, peers=peers)
    for cell in cells:
        write_summary(cell, {"big": (0.7, None), "small": (0.7, None)})
        for name, number in sizes.items():
            facts = dataclasses.replace(IMAGES, num_train=number)
            PeerFolder(cell.folder, PeerId(name)).check_private_images(facts, begins=True)
    costs = {cost.column.name: cost for cost in compare(experiment, cells, []).costs}
    assert costs["private"].images == (10 * 20, 10 * 256)
    assert costs["solo"].images == costs["dogo"].images == (10 * (128 + 20), 10 * 256)


def test_who_has_no_teacher_gets_no_bytes(tmp_path: Path) -> None:
    one_way = ["exchange.graph={big: {small: 1}}"]
    experiment = made_experiment(methods=[Method.SOLO, Method.DOGO], variants={"one_way": one_way})
    cells = made_cells(experiment, tmp_path)
    for cell in cells:
        write_summary(cell, {"big": (0.7, None), "small": (0.7, None)})
    in_all = {cost.column.name: cost.bytes_in_all for cost in compare(experiment, cells, []).costs}
    sent = 10 * 4 * 256**2
    assert in_all == {"solo": 0, "dogo": 2 * sent, "dogo-one_way": 1.5 * sent}


def test_what_travels_in_the_whole_run_is_told_and_drawn(tmp_path: Path) -> None:
    made = sites_in(tmp_path)
    costs = {cost.column.name: cost for cost in made.costs}
    assert costs["fedavg"].bytes_in_all == 10 * 400 and costs["fedavg"].bytes_per_step == 100
    assert costs["dogo"].bytes_in_all == 2 * costs["dogo"].bytes_per_step * 10 > 0
    assert costs["central"].bytes_in_all == costs["private"].bytes_in_all == 0
    assert "3.91 KiB" in to_markdown(made)
    assert draws_traffic(made)
    draw_traffic(made, tmp_path / "traffic.png")
    assert (tmp_path / "traffic.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_methods_that_move_the_same_make_no_picture_of_it(made: Comparison) -> None:
    assert not draws_traffic(made)


def test_a_broken_table_of_private_images_is_named(tmp_path: Path) -> None:
    sites_in(tmp_path)
    (broken, *_) = tmp_path.rglob("partition.csv")
    broken.write_text("part,images\nbig,many\n")
    cells = made_cells(made_experiment(methods=SITES), tmp_path, partition={"kind": "iid"})
    with pytest.raises(CheckpointError, match=r"partition.csv can't be read"):
        compare(made_experiment(methods=SITES), cells, [])


def test_nothing_finished_is_said(tmp_path: Path) -> None:
    experiment = made_experiment()
    made = compare(experiment, made_cells(experiment, tmp_path), [])
    assert "nothing to compare" in to_markdown(made)
    assert to_csv(made).count("\n") == 1
    draw_comparison(made, tmp_path / "compare.png")
    assert (tmp_path / "compare.png").stat().st_size > 1000


def test_a_metric_that_was_not_measured_has_no_table(tmp_path: Path) -> None:
    experiment = made_experiment(methods=[Method.SOLO, Method.DOGO])
    cells = made_cells(experiment, tmp_path)
    for cell in cells:
        write_summary(cell, {"big": (None, 0.5), "small": (None, 0.5)})
    made = compare(experiment, cells, [])
    assert {row.metric for row in made.rows} == {"knn_top1"}
    assert "linear" not in to_markdown(made)
    assert "verdict" in to_markdown(made) and "offline" not in to_markdown(made)


def test_without_labels_the_health_is_shown_and_not_judged(tmp_path: Path) -> None:
    experiment = made_experiment(methods=[Method.SOLO, Method.DOGO])
    cells = made_cells(experiment, tmp_path)
    for cell in cells:
        better = 1.0 if cell.column == DOGO else 0.0
        health = {"rankme": 20.0 + cell.seed / 8 + better, "alignment": 0.25, "uniformity": None}
        write_summary(cell, {"big": (None, None), "small": (None, None)}, health=health)
    made = compare(experiment, cells, [])
    assert {row.metric for row in made.rows} == {"rankme", "alignment"}
    page = to_markdown(made)
    assert "effective rank (no labels, so not judged)" in page
    assert "20.125 \u00b1 0.125" in page and "+1.000 [+1.000, +1.000] n=3" in page
    assert "| not judged |" in page and "| helps |" not in page
    assert "not judged" in to_csv(made) and "helps" not in to_csv(made)
    draw_comparison(made, tmp_path / "compare.png")
    assert (tmp_path / "compare.png").stat().st_size > 1000


def test_resumed_cells_do_not_count_as_time_and_missed_steps_are_marked(tmp_path: Path) -> None:
    experiment = made_experiment(methods=[Method.SOLO, Method.DOGO], seeds=[0, 1])
    cells = made_cells(experiment, tmp_path)
    both = {"big": (0.5, 0.5), "small": (0.5, 0.5)}
    resumed = [{"kind": "resumed", "message": "at step 5"}]
    for cell in cells:
        if cell.column.method is Method.DOGO:
            write_summary(cell, both, wall_s=50.0, steps_trained=9)
        else:
            is_first = cell.seed == 0
            write_summary(cell, both, wall_s=3.0 if is_first else 40.0, events=resumed[:is_first])
    costs = {cost.column.method: cost for cost in compare(experiment, cells, []).costs}
    assert costs[Method.SOLO].wall_s == 40.0 and not costs[Method.SOLO].is_short
    assert costs[Method.DOGO].wall_s == 50.0 and costs[Method.DOGO].is_short
    assert costs[Method.SOLO].images == costs[Method.DOGO].images == (2560, 2560)
    assert "10*" in to_markdown(compare(experiment, cells, []))


def test_sheet_and_data_hold_the_numbers(made: Comparison, tmp_path: Path) -> None:
    write_comparison(made, tmp_path)
    assert {path.name for path in tmp_path.glob("compare.*")} == {
        "compare.json", "compare.csv", "compare.md",
    }  # fmt: skip
    data = json.loads((tmp_path / "compare.json").read_text())
    assert data == json.loads(json.dumps(to_json(made)))
    first = data["rows"][0]
    assert first["methods"]["solo"]["scores"] == {"0": 0.8, "1": 0.81, "2": 0.82}
    expected = paired_difference(
        {seed: score[0] for seed, score in DOGO_SCORES.items()},
        {seed: score[0] for seed, score in SOLO_SCORES.items()},
    )
    assert first["dogo_minus"]["solo"]["low"] == pytest.approx(expected.low)
    assert len(data["cells"]) == 12
    (sheet, *_) = csv.DictReader(io.StringIO((tmp_path / "compare.csv").read_text()))
    assert sheet["dogo_minus_solo_verdict"] == "helps"
    assert float(sheet["dogo_minus_solo_high"]) == pytest.approx(expected.high)
    assert float(sheet["solo_mean"]) == pytest.approx(0.81)


def test_the_picture_is_drawn(made: Comparison, tmp_path: Path) -> None:
    many = dataclasses.replace(
        made,
        rows=tuple(
            dataclasses.replace(row, data=f"data{number}")
            for number in range(8)
            for row in made.rows
        ),
    )
    for name, one in (("few", made), ("many", many)):
        draw_comparison(one, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


VARIANTS = {
    "weak": ["peers.big.distill_weight=0.1"],
    "rare": ["exchange.every_steps=4"],
    "both_ways": ["exchange.symmetric=true"],
}
BY_VARIANT = {None: 0.0, "weak": 0.01, "rare": -0.03, "both_ways": 0.0}


@pytest.fixture
def with_variants(tmp_path: Path) -> Comparison:
    experiment = made_experiment(methods=[Method.SOLO, Method.DOGO], variants=VARIANTS)
    cells = made_cells(experiment, tmp_path)
    for cell in cells:
        linear, knn = (SOLO_SCORES if cell.column.method is Method.SOLO else DOGO_SCORES)[cell.seed]
        scores = (linear + BY_VARIANT[cell.column.variant], knn)
        write_summary(cell, {"big": scores, "small": scores})
    return compare(experiment, cells, [])


def test_variants_are_compared_with_solo_and_with_dogo(with_variants: Comparison) -> None:
    row = with_variants.rows[0]
    weak, rare = Column(Method.DOGO, "weak"), Column(Method.DOGO, "rare")
    assert row.metric == "linear_top1"
    assert row.scores[DOGO] == {seed: one[0] for seed, one in DOGO_SCORES.items()}
    own = row.difference(DOGO, SOLO).mean
    assert row.difference(weak, SOLO).mean == pytest.approx(own + 0.01)
    assert row.difference(rare, DOGO).mean == pytest.approx(-0.03)
    assert row.difference(weak, SOLO).verdict.value == "helps"


def test_variants_cost_what_they_send(with_variants: Comparison) -> None:
    bytes_per_step = {cost.column.name: cost.bytes_per_step for cost in with_variants.costs}
    assert bytes_per_step == {
        "solo": 0,
        "dogo": 4 * 256**2,
        "dogo-weak": 4 * 256**2,
        "dogo-rare": 4 * 256**2 * 3 / 10,  # at steps 0, 4 and 8 of 10
        "dogo-both_ways": 8 * 256**2,
    }


def test_variants_have_a_table_fields_and_a_picture(
    with_variants: Comparison, tmp_path: Path
) -> None:
    page = to_markdown(with_variants)
    assert "- weak: `peers.big.distill_weight=0.1`" in page
    table = page.split("variant of dogo", 1)[1].split("\n\n", 1)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    named = {(row[0], row[1]): row for row in rows[2:]}
    assert set(named) == {(peer, one) for peer in ("big", "small") for one in VARIANTS}
    assert named["big", "weak"][2].startswith("84.0") and named["big", "weak"][4] == "helps"
    data = to_json(with_variants)
    assert data["variants"] == VARIANTS
    assert data["rows"][0]["variants"]["rare"]["minus"]["dogo"]["mean"] == pytest.approx(-0.03)
    (sheet, *_) = csv.DictReader(io.StringIO(to_csv(with_variants)))
    assert float(sheet["dogo-weak_minus_dogo_mean"]) == pytest.approx(0.01)
    assert sheet["dogo-weak_minus_solo_verdict"] == "helps"
    for picture in (draw_variants, draw_comparison):
        picture(with_variants, tmp_path / "one.png")
        assert (tmp_path / "one.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    without_dogo = dataclasses.replace(with_variants, methods=(SOLO,))
    (axes, *_) = _figure(without_dogo).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == list(VARIANTS)
    nothing = dataclasses.replace(with_variants, rows=())
    draw_variants(nothing, tmp_path / "none.png")
    assert (tmp_path / "none.png").stat().st_size > 1000


def test_a_difference_reads_with_a_true_minus_sign() -> None:
    assert difference(paired_difference({0: 0.5, 1: 0.5}, {0: 0.51, 1: 0.51})).startswith(
        "\u22121.0 [\u22121.0, \u22121.0] n=2"
    )
