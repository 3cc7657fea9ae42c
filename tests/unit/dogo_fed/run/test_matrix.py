"""Every encoder on every peer's private images, and what a run with a partition leaves."""

from __future__ import annotations

import csv
import dataclasses
import errno
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from configs.compose import compose_run
from configs.resume import resumed
from configs.shorthand import in_full
from dogo_fed.compare.protocols import has_protocol, read_protocol
from dogo_fed.config_text import load_run_config
from dogo_fed.contracts import PeerId
from dogo_fed.errors import ConfigError, DataError
from dogo_fed.run.evaluate import evaluate_run
from dogo_fed.run.matrix import matrix_of_run, write_matrix
from dogo_fed.storage.run_folder import note_site
from server.commands import matrix as command
from tests.support.run_watch import digests
from tests.support.tiny_run import TINY, run_here

CUT = ("partition=dirichlet", "partition.alpha=1", "partition.least_images=8", "peers=pair")


def test_a_site_trains_its_peer_at_home_as_it_would_be_without_exchange(tmp_path: Path) -> None:
    """By this it can tell whether taking part helped; see docs/cross_site.md."""
    own = ("peers.wide.data=synthetic", "peers.wide.data.options.seed=5")
    alone = ("peers=pair", "exchange.enabled=false", "anchor_share=0.5", "batch_size=32")
    all_here, at_home = tmp_path / "all", tmp_path / "home"
    run_here(compose_run([*TINY, *in_full([*alone, *own]), f"run_dir={all_here}"]))
    left_out = ("~peers.resnet",)
    run_here(compose_run([*TINY, *in_full([*alone, *own, *left_out]), f"run_dir={at_home}"]))
    assert digests(at_home) == {"wide": digests(all_here)["wide"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cut") / "run"
    run_here(compose_run([*TINY, *CUT, f"run_dir={path}"]))
    return path


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_the_cut_is_in_the_run_folder(folder: Path) -> None:
    rows = table(folder / "partition.csv")
    assert [row["part"] for row in rows] == ["anchors", "resnet", "wide"]
    assert sum(int(row["images"]) for row in rows) == 96


def test_every_encoder_is_evaluated_on_every_peers_images(folder: Path) -> None:
    found = matrix_of_run(folder, load_run_config(folder))
    paths = write_matrix(found, folder)
    assert [path.name for path in paths] == ["matrix.csv", "matrix.md", "matrix.png"]
    assert paths[2].stat().st_size > 4000
    rows = table(paths[0])
    assert [(row["encoder"], row["site"]) for row in rows] == [
        ("resnet", "resnet"), ("resnet", "wide"), ("wide", "resnet"), ("wide", "wide"),
    ]  # fmt: skip
    assert all(0.0 <= float(row["knn_top1"]) <= 1.0 for row in rows)
    sizes = {row["part"]: int(row["images"]) for row in table(folder / "partition.csv")}
    assert found.sizes == {"resnet": sizes["resnet"], "wide": sizes["wide"]}
    assert found.to_markdown().count("**") == 4, "a peer's own images stand in bold"


def test_the_matrix_has_the_neighbours_of_the_run(folder: Path) -> None:
    config = load_run_config(folder)
    found = {}
    for k in (1, 10**6):
        settings = dataclasses.replace(config.eval, knn_k=k)
        found[k] = matrix_of_run(folder, dataclasses.replace(config, eval=settings))
    assert found[1].accuracies != found[10**6].accuracies, "as many as a site has, at most"


def in_parts(path: Path, *settings: str) -> dict[str, str]:
    """Does a step, goes on to the end, and returns the digests."""
    short = [one for one in TINY if one != "steps=3"]
    run_here(compose_run([*short, "steps=1", *settings, f"run_dir={path}"]))
    again = [f"resume={path}", "steps=3"]
    run_here(resumed(compose_run(again), again))
    return digests(path)


def test_a_run_in_parts_ends_as_one_in_one_go(folder: Path, tmp_path: Path) -> None:
    assert in_parts(tmp_path / "parts", *CUT) == digests(folder)


OTHERS = ("+data@partition.anchors_from=synthetic", "partition.anchors_from.options.size=60",
          "partition.anchors_from.options.test_size=8", "partition.anchors_from.options.seed=9")  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        ["objective@peers.wide.objective=moco_v2_small", "peers.wide.ssl_on=private"],
        ["objective@peers.wide.objective=byol_small"],
        ["peers.wide.teacher=ema", "peers.resnet.teacher=ema", "peers.wide.teacher_momentum=0.5"],
        [*OTHERS, "partition.anchors=0.5"],
    ],
    ids=["queue", "target", "average", "other_anchors"],
)
def test_what_a_peer_carries_from_step_to_step_goes_on_with_private_images(
    settings: list[str], tmp_path: Path
) -> None:
    """A queue of embeddings, a target network, an average that teaches, anchors of another kind."""
    whole = tmp_path / "whole"
    run_here(compose_run([*TINY, *CUT, *settings, f"run_dir={whole}"]))
    assert in_parts(tmp_path / "parts", *CUT, *settings) == digests(whole)


def test_a_peer_with_images_of_its_own_is_evaluated_on_them_again(tmp_path: Path) -> None:
    private = ("+data@peers.wide.data=synthetic", "peers.wide.data.options.size=80",
               "peers.wide.data.options.test_size=24", "peers.wide.data.options.seed=7")  # fmt: skip
    run = tmp_path / "run"
    summary = run_here(compose_run([*TINY, *private, "peers=pair", f"run_dir={run}"]))
    config = load_run_config(run)
    scores = evaluate_run(run, config, "knn", {"k": 5})
    for peer, result in summary["peers"].items():
        assert scores[peer][0].value == result["knn_top1"]
    found = {path.name for path in (run / "evaluation").glob("*.json")}
    assert found == {"knn-resnet.json", "knn-wide.json"}
    sheets = [json.loads((run / "evaluation" / name).read_text()) for name in sorted(found)]
    assert sheets[0]["fingerprint"] != sheets[1]["fingerprint"]
    assert has_protocol(run, config, "knn", {"k": 5}, config.peers), "as a comparison reads them"
    assert read_protocol(run, "knn") == {
        peer: {f"knn/{of[0].condition}": of[0].value} for peer, of in scores.items()
    }
    for path in (run / "evaluation").glob("*.json"):
        elsewhere = {**json.loads(path.read_text()), "fingerprint": "of other images"}
        mean = next(iter(elsewhere["encoders"].values()))["means"][0]
        mean["mean"] = 0.123
        path.with_name(f"{path.stem}-elsewhere.json").write_text(json.dumps(elsewhere))
    assert has_protocol(run, config, "knn", {"k": 5}, config.peers)
    assert 0.123 not in [one for of in read_protocol(run, "knn").values() for one in of.values()]
    of_shared = run / "evaluation" / "knn-resnet.json"
    of_shared.write_text(json.dumps({**sheets[0], "seed": config.seed + 1}))
    assert not has_protocol(run, config, "knn", {"k": 5}, config.peers), "other draws"
    wide = config.peers["wide"]
    assert wide.data is not None
    options = {**wide.data.options, "seed": 8}
    other = dataclasses.replace(wide, data=dataclasses.replace(wide.data, options=options))
    changed = dataclasses.replace(config, peers={**config.peers, "wide": other})
    with pytest.raises(DataError, match=r"not those of peer wide in run run"):
        evaluate_run(run, changed, "knn", {"k": 5})


def test_encoders_of_others_are_evaluated_where_the_images_are(tmp_path: Path) -> None:
    private = ("+data@peers.wide.data=synthetic", "peers.wide.data.options.size=80",
               "peers.wide.data.options.test_size=24", "peers.wide.data.options.seed=7")  # fmt: skip
    run = tmp_path / "run"
    run_here(compose_run([*TINY, *private, "peers=pair", f"run_dir={run}"]))
    whole = matrix_of_run(run, load_run_config(run))
    site, given = tmp_path / "site", tmp_path / "resnet.safetensors"
    shutil.copytree(run / "peers" / "wide", site / "peers" / "wide")
    note_site(site, load_run_config(run), PeerId("wide"), begins=True)
    shutil.copy(run / "peers" / "resnet" / "encoder.safetensors", given)
    column = matrix_of_run(site, load_run_config(site), [given])
    assert column.accuracies == whole.accuracies and set(column.accuracies) == {"resnet", "wide"}
    with pytest.raises(ConfigError, match=r"two encoders are named wide; rename the file wide\."):
        matrix_of_run(site, load_run_config(site), [given.rename(tmp_path / "wide.safetensors")])


def test_a_matrix_that_can_not_be_written_is_printed(folder, monkeypatch, capsys) -> None:
    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(sys, "argv", ["dogo-fed matrix", f"run={folder}"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    printed = capsys.readouterr()
    assert ended.value.code == 1 and "| resnet | **" in printed.out
    assert f"{folder}/evaluation/matrix.csv can't be used: No space left" in printed.err


def test_a_run_without_private_images_has_no_matrix(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"type dogo-fed evaluate run={tmp_path}"):
        matrix_of_run(tmp_path, compose_run([*TINY]))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["runs=x"], "it takes run, encoders, trust"),
        (["trust=true"], "name the run: run="),
        (["run=x", "trust=maybe"], "trust must be true or false"),
        (["run=nowhere"], "nowhere is no run folder"),
    ],
)
def test_what_the_command_does_not_know_is_answered(arguments, says, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["dogo-fed matrix", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2 and says in capsys.readouterr().err
