"""A run's encoders under protocols: what is read, what is written, what is refused."""

from __future__ import annotations

import csv
import dataclasses
import errno
import io
import json
import math
import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from configs.compose import compose_run
from dogo_fed.compare.protocols import protocol_targets
from dogo_fed.config import ComponentConfig, DataConfig, RunConfig
from dogo_fed.config_text import load_run_config
from dogo_fed.contracts import PeerId, Score
from dogo_fed.data.datasets import build_dataset
from dogo_fed.data.held_out import dataset_with_test_part
from dogo_fed.data.synthetic import synthetic
from dogo_fed.errors import CheckpointError, ConfigError, DataError
from dogo_fed.evaluation.protocols import PROTOCOLS, complete_options
from dogo_fed.evaluation.subject import Inputs
from dogo_fed.models.weights import read_weights
from dogo_fed.packages import source_digest
from dogo_fed.provenance import DataFacts, Provenance, origin_here
from dogo_fed.reporting.pictures import score_plot
from dogo_fed.reporting.score_sheet import ScoreSheet, means
from dogo_fed.reporting.scores import CSV_COLUMNS, scores_table, write_sheet
from dogo_fed.run import evaluate as evaluate_module
from dogo_fed.run import weights_file
from dogo_fed.run.evaluate import evaluate_run, evaluate_subjects, open_backbone, open_run
from dogo_fed.run.export import Format, export_encoder
from dogo_fed.run.train import train
from dogo_fed.run.weights_file import WeightsFile, open_file
from dogo_fed.storage.provenance_file import Start, read_starts, write_starts
from dogo_fed.storage.run_folder import note_site
from server.commands import evaluate as evaluate_command
from server.commands.evaluation_request import as_lists, compose_evaluation
from tests.support.image_folders import noise_photos

CNN = ComponentConfig(name="small_cnn", options={"width": 4})
LIMITED = {"fractions": [0.1], "per_class": [3], "draws": 2}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunConfig]:
    """A run of two peers, seconds long."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    config = compose_run(
        [
            "host=local", "data=synthetic", "data.options.size=120", "data.options.test_size=60",
            "steps=2", "steps_per_round=2", "batch_size=16", "eval.knn_k=10", "eval.linear_epochs=3",
            "peers.wide.backbone.options.width=1", f"run_dir={folder}",
        ]
    )  # fmt: skip
    train(config)
    return folder, config


def test_linear_and_knn_are_the_numbers_of_the_summary(finished: tuple[Path, RunConfig]) -> None:
    folder, config = finished
    summary = json.loads((folder / "summary.json").read_text())["peers"]
    linear = evaluate_run(folder, config, "linear", {"epochs": 3})
    knn = evaluate_run(folder, config, "knn", {"k": 10}, peers=["wide"])
    assert set(linear) == {"resnet", "wide"} and set(knn) == {"wide"}
    for peer, (score,) in linear.items():
        assert score.value == summary[peer]["linear_top1"]
        assert score.low < score.value < score.high
    assert knn["wide"][0].value == summary["wide"]["knn_top1"]


def test_three_files_that_say_the_same(finished: tuple[Path, RunConfig]) -> None:
    folder, config = finished
    exported = (folder / "peers" / "wide" / "encoder.safetensors").read_bytes()
    scores = evaluate_run(folder, config, "limited_labels", LIMITED)
    stem = folder / "evaluation" / "limited_labels"
    content = json.loads(stem.with_suffix(".json").read_text())
    assert content["options"] == LIMITED and content["seed"] == config.seed
    with stem.with_suffix(".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == CSV_COLUMNS
    for peer, its_scores in scores.items():
        in_json = [Score(**one) for one in content["encoders"][peer]["scores"]]
        assert in_json == its_scores
        in_csv = [row for row in rows if row["encoder"] == peer]
        assert [float(row["value"]) for row in in_csv] == [score.value for score in its_scores]
        assert [(row["condition"], int(row["draw"])) for row in in_csv] == [
            (score.condition, score.draw) for score in its_scores
        ]
    assert stem.with_suffix(".png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert not [path for path in stem.parent.iterdir() if path.name.startswith(".")]
    assert (folder / "peers" / "wide" / "encoder.safetensors").read_bytes() == exported


def test_nothing_global_changes(finished: tuple[Path, RunConfig]) -> None:
    folder, config = finished
    threads, random_before = torch.get_num_threads(), torch.get_rng_state()
    deterministic = torch.are_deterministic_algorithms_enabled()
    evaluate_run(folder, config, "knn", {"k": 10})
    assert torch.get_num_threads() == threads
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    assert torch.equal(torch.get_rng_state(), random_before)


def test_features_are_extracted_once_for_all_draws(
    finished: tuple[Path, RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    import dogo_fed.evaluation.subject as module

    calls = []
    original = module.extract_features

    def counting(*args: object, **options: object) -> object:
        calls.append(1)
        return original(*args, **options)

    monkeypatch.setattr(module, "extract_features", counting)
    subjects = open_run(*finished, peers=["wide"])
    evaluate_subjects(subjects, "limited_labels", {**LIMITED, "draws": 3}, source="x")
    evaluate_subjects(subjects, "knn", {"k": 5}, source="x")
    assert len(calls) == 2


def test_a_run_is_evaluated_where_it_is_asked_for(finished: tuple[Path, RunConfig]) -> None:
    folder, config = finished
    elsewhere = dataclasses.replace(config, device="cuda")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="sees no GPU"):
            open_run(folder, elsewhere)
    subjects = open_run(folder, elsewhere, device="cpu")
    assert {subject.encoder.device.type for subject in subjects} == {"cpu"}


def test_what_is_missing_is_said(finished: tuple[Path, RunConfig], tmp_path: Path) -> None:
    folder, config = finished
    with pytest.raises(ConfigError, match="no peer 'tall' in finished; its peers are resnet, wide"):
        evaluate_run(folder, config, "knn", {}, peers=["tall"])
    with pytest.raises(ConfigError, match="did you mean 'linear'"):
        evaluate_run(folder, config, "linea", {})
    with pytest.raises(ConfigError, match="is what the encoder was trained on"):
        evaluate_run(folder, config, "ood", {})
    with pytest.raises(CheckpointError, match=r"peer 'resnet' has no encoder.*when the run ends"):
        evaluate_run(tmp_path, config, "knn", {})
    assert not (tmp_path / "evaluation").exists()
    other = dataclasses.replace(
        config,
        peers={"wide": dataclasses.replace(config.peers["wide"], backbone=CNN)},
    )
    with pytest.raises(CheckpointError, match=r"does not fit the backbone SmallCNN: missing: "):
        evaluate_run(folder, other, "knn", {})


def test_a_failure_leaves_no_file(finished: tuple[Path, RunConfig], tmp_path: Path) -> None:
    folder, config = finished
    with pytest.raises(ConfigError, match="labelled images of class 0"):
        evaluate_run(folder, config, "limited_labels", {"per_class": [1000]})
    assert not [p for p in folder.rglob("*") if "partial" in p.name]


def test_a_run_is_not_evaluated_on_other_images_than_its_own(finished) -> None:
    folder, config = finished
    other = DataConfig(name="synthetic", options={**config.data.options, "seed": 1})
    with pytest.raises(DataError, match=r"not those of run finished: .*other images by data="):
        open_run(folder, dataclasses.replace(config, data=other))


def test_on_other_images_mean_and_deviation_are_those_of_the_training(finished) -> None:
    """Not those of a folder that has changed, or is gone."""
    folder, config = finished
    gone = DataConfig(name="image_folder", options={"root": "/not/there"})
    on = synthetic(size=40, test_size=20, seed=7)
    (mine, _) = open_run(folder, dataclasses.replace(config, data=gone), on=on)
    trained_on = synthetic(size=120, test_size=60)
    assert (mine.encoder.inputs.mean, mine.encoder.inputs.std) == (trained_on.mean, trained_on.std)
    assert mine.encoder.inputs.mean != on.mean
    assert mine.encoder.trained_on == trained_on.fingerprint


def test_a_run_of_an_earlier_version_is_evaluated_without_that_check(finished, tmp_path) -> None:
    folder, config = finished
    old = tmp_path / "old"
    shutil.copytree(folder, old)
    (old / "provenance.json").unlink()
    assert len(open_run(old, config)) == 2


@pytest.fixture
def copy(finished: tuple[Path, RunConfig], tmp_path: Path) -> Path:
    """The folder of the finished run, to be changed."""
    without = shutil.ignore_patterns("evaluation")
    return Path(shutil.copytree(finished[0], tmp_path / "copy", ignore=without))


def test_size_and_normalisation_are_the_encoders_own(finished, copy) -> None:
    """Those of the newest start are of other images, if the run has begun again and was stopped."""
    other = synthetic(size=120, test_size=60, image_size=24, seed=1)
    write_starts(copy, [Start(0, Provenance.of(other, torch.device("cpu"), "0" * 32))])
    _, config = finished
    (mine, _) = open_run(copy, config, on=synthetic(size=40, test_size=20, seed=7))
    assert mine.encoder.inputs == Inputs.of(synthetic(size=120, test_size=60)) != Inputs.of(other)
    _, trained_on = open_backbone(copy, config, "wide")
    assert trained_on.mean == mine.encoder.inputs.mean


def test_an_encoder_is_not_evaluated_on_the_images_of_a_later_start(finished, copy) -> None:
    other = synthetic(size=120, test_size=60, seed=1)
    write_starts(copy, [Start(0, Provenance.of(other, torch.device("cpu"), "0" * 32))])
    _, config = finished
    data = DataConfig(name="synthetic", options={**config.data.options, "seed": 1})
    with pytest.raises(DataError, match=r"not those of peer resnet in run copy: .*data=<name>"):
        open_run(copy, dataclasses.replace(config, data=data))


RESUMED = '{"type":"event","kind":"resumed","message":"the run goes on at step 2"}\n'
STEP = '{"type":"step","peer":"wide","step":2}\n'


def change_summary(folder: Path, **peers: object) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "peers": peers}))


@pytest.mark.parametrize("what", ["stopped", "other weights", "killed"])
def test_an_encoder_of_an_earlier_end_is_refused(what: str, finished, copy) -> None:
    _, config = finished
    if what == "killed":
        with (copy / "metrics.jsonl").open("a") as metrics:
            metrics.write(RESUMED + STEP)
    else:
        change_summary(copy, **({} if what == "stopped" else {"wide": {"state_digest": "0" * 64}}))
    for use in (
        lambda: evaluate_run(copy, config, "knn", {"k": 10}, peers=["wide"]),
        lambda: open_backbone(copy, config, "wide"),
    ):
        with pytest.raises(CheckpointError, match=rf"'wide' .*earlier end.*resume={copy}"):
            use()
    assert not (copy / "evaluation").exists()


def test_an_encoder_outlives_a_start_that_has_done_nothing_and_a_summary_that_is_gone(
    finished, copy
) -> None:
    _, config = finished
    with (copy / "metrics.jsonl").open("a") as metrics:
        metrics.write(RESUMED)
    assert len(open_run(copy, config)) == 2
    (copy / "summary.json").unlink()  # as at a site
    assert len(open_run(copy, config)) == 2


@pytest.mark.parametrize("on", [None, synthetic(size=40, test_size=20, seed=7)], ids=["own", "on"])
def test_other_code_is_said_when_a_run_is_evaluated(on, finished, monkeypatch, caplog) -> None:
    folder, config = finished
    monkeypatch.setattr(evaluate_module, "source_digest", lambda: "0" * 32)
    open_run(folder, config, on=on)
    (line,) = [one.getMessage() for one in caplog.records if "something else" in one.getMessage()]
    assert line.startswith("run finished was trained with something else: source was ")


def test_other_code_is_said_when_an_exported_encoder_is_evaluated(
    finished, monkeypatch, caplog
) -> None:
    folder, _ = finished
    path = folder / "peers" / "wide" / "encoder.safetensors"
    open_file(WeightsFile(path=path), synthetic(size=40, test_size=20))
    assert "something else" not in caplog.text
    monkeypatch.setattr(weights_file, "source_digest", lambda: "0" * 32)
    open_file(WeightsFile(path=path), synthetic(size=40, test_size=20))
    (line,) = [one.getMessage() for one in caplog.records if "something else" in one.getMessage()]
    assert line.startswith(f"{path} was trained with something else: source was ")


def test_an_exported_encoder_brings_the_size_and_normalisation_that_it_needs(
    finished, tmp_path, caplog
) -> None:
    folder, config = finished
    on = synthetic(size=40, test_size=20, image_size=24, seed=7)
    path = folder / "peers" / "wide" / "encoder.safetensors"
    trained_on = synthetic(size=120, test_size=60)
    file = WeightsFile(path=path, backbone=config.peers["wide"].backbone)
    mine = open_file(file, on)
    assert mine.encoder.inputs == Inputs.of(trained_on) != Inputs.of(on)
    assert mine.encoder.trained_on == trained_on.fingerprint
    asked = open_file(dataclasses.replace(file, mean=(0.1, 0.2, 0.3)), on)
    assert asked.encoder.inputs.mean == (0.1, 0.2, 0.3)
    strange = tmp_path / "strange.safetensors"
    tensors = read_weights(path)
    save_file(tensors, strange, metadata={"dogo_fed": '{"data": {"image_size": "huge"}}'})
    assert open_file(dataclasses.replace(file, path=strange), on).encoder.inputs == Inputs.of(on)
    assert "does not say what it was trained with" in caplog.text


def test_an_exported_encoder_says_which_network_it_is_of(finished, tmp_path) -> None:
    folder, config = finished
    on = synthetic(size=40, test_size=20)
    path = folder / "peers" / "wide" / "encoder.safetensors"
    named = open_file(WeightsFile(path=path, backbone=config.peers["wide"].backbone), on)
    unnamed = open_file(WeightsFile(path=path), on)
    ours, theirs = (one.encoder.backbone.state_dict() for one in (unnamed, named))
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    plain = tmp_path / "plain.safetensors"
    save_file(read_weights(path), plain)
    with pytest.raises(CheckpointError, match="which network it is of; give it by backbone=<name>"):
        open_file(WeightsFile(path=plain), on)


@pytest.mark.parametrize(
    "network", ['{"name": "os:system", "options": {}}', '{"name": 3}', '{"nom": "resnet18"}', "[]"]
)
def test_a_file_cannot_name_code_of_its_own(network: str, finished, tmp_path, monkeypatch) -> None:
    def build(*given: object) -> None:
        raise AssertionError("nothing is built")

    monkeypatch.setattr(weights_file, "initial_backbone", build)
    folder, _ = finished
    path = tmp_path / "theirs.safetensors"
    described = f'{{"network": {network}}}'
    tensors = read_weights(folder / "peers" / "wide" / "encoder.safetensors")
    save_file(tensors, path, metadata={"dogo_fed": described})
    with pytest.raises(CheckpointError, match="backbone="):
        open_file(WeightsFile(path=path), synthetic(size=40, test_size=20))


@pytest.fixture
def at_site(finished, tmp_path) -> Path:
    """What a site has of a run: its own peer's folder, and the settings."""
    folder, config = finished
    path = tmp_path / "site" / folder.name
    shutil.copytree(folder / "peers" / "wide", path / "peers" / "wide")
    note_site(path, config, PeerId("wide"), begins=True)
    return path


def test_a_site_evaluates_its_encoder_as_anybody_does(finished, at_site) -> None:
    folder, config = finished
    own = load_run_config(at_site)
    assert list(own.peers) == ["wide"] and own.batch_size == config.batch_size
    (wide,) = evaluate_run(at_site, own, "knn", {"k": 5}).values()
    assert wide == evaluate_run(folder, config, "knn", {"k": 5}, peers=["wide"])[PeerId("wide")]


def test_a_site_exports_its_encoder_with_what_it_knows_of_it(finished, at_site) -> None:
    folder, config = finished
    path, card = export_encoder(at_site, load_run_config(at_site), "wide", Format.SAFETENSORS)
    theirs, _ = export_encoder(folder, config, "wide", Format.SAFETENSORS, at_site / "theirs")
    assert path.read_bytes() == theirs.read_bytes()
    digest = json.loads((folder / "summary.json").read_text())["peers"]["wide"]["state_digest"]
    text = card.read_text()
    assert "together with other peers." in text
    assert "| updates | `2` |" in text and f"| state | `{digest}` |" in text


def test_a_site_s_part_of_a_run_does_not_go_on_alone(at_site) -> None:
    with pytest.raises(
        ConfigError, match="a site's part of a run, which goes on from the coordinat"
    ):
        load_run_config(at_site, to_go_on=True)


def test_an_export_and_its_card_bring_what_an_evaluation_needs(finished, tmp_path) -> None:
    folder, config = finished
    trained_on = Inputs.of(synthetic(size=120, test_size=60))
    backbone = config.peers["wide"].backbone
    out = tmp_path / "wide.safetensors"
    path, card = export_encoder(folder, config, "wide", Format.SAFETENSORS, out)
    on = synthetic(size=40, test_size=20, image_size=24, seed=7)
    assert open_file(WeightsFile(path=path, backbone=backbone), on).encoder.inputs == trained_on
    code = "\n".join(line for line in card.read_text().splitlines() if line.startswith("    "))
    program, command, *arguments = shlex.split(code.replace("\\\n", ""))
    assert (program, command, arguments[0]) == ("dogo-fed", "evaluate", f"checkpoint={out.name}")
    named = {"data=<data>": "data=synthetic", "out=<folder>": f"out={tmp_path}"}
    request = compose_evaluation([named.get(one, one) for one in arguments])
    assert request.backbone is not None and request.mean is not None and request.std is not None
    assert request.backbone.name == backbone.name
    assert dict(request.backbone.options) == dict(backbone.options)
    assert request.image_size == trained_on.image_size
    assert (tuple(request.mean), tuple(request.std)) == (trained_on.mean, trained_on.std)


def test_the_card_says_how_the_encoder_was_made_and_what_it_reached(finished, tmp_path) -> None:
    folder, config = finished
    found = json.loads((folder / "summary.json").read_text())["peers"]["wide"]
    facts = open_backbone(folder, config, "wide")[1]
    _, card = export_encoder(folder, config, "wide", Format.SAFETENSORS, tmp_path / "wide")
    text = card.read_text()
    for line in (
        f"| images | synthetic, {facts.num_train}, fingerprint `{facts.fingerprint}` |",
        f"| seed, batch size | {config.seed}, {config.batch_size} |",
        f"| state | `{found['state_digest']}` |",
        f"| kNN, top-1 | {100 * found['knn_top1']:.1f} % |",
        f"| linear probe, top-1 | {100 * found['linear_top1']:.1f} % |",
    ):
        assert line in text.splitlines()


def test_a_graph_needs_its_library_and_says_so(finished, tmp_path, monkeypatch) -> None:
    folder, config = finished
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"pip install 'dogo-fed\[onnx\]'"):
        export_encoder(folder, config, "wide", Format.ONNX, tmp_path / "wide.onnx")
    assert not list(tmp_path.iterdir())


def test_each_exported_file_has_a_card_of_its_own(finished, tmp_path) -> None:
    folder, config = finished
    for name in ("wide.safetensors", "wide.pth", "wide.md"):
        path, card = export_encoder(folder, config, "wide", Format.SAFETENSORS, tmp_path / name)
        assert (path.name, card.name) == (name, f"{name}.md") and path.stat().st_size > 1000
    assert len(list(tmp_path.iterdir())) == 6


def test_an_encoder_for_others_tells_nothing_of_the_images_and_serves_all_the_same(
    finished, tmp_path
) -> None:
    folder, config = finished
    facts = open_backbone(folder, config, "wide")[1]
    telling = [
        facts.name, facts.fingerprint, facts.test_fingerprint, facts.labels, *facts.class_names,
        f'num_train\\": {facts.num_train}', f", {facts.num_train}, fingerprint", " %",
    ]  # fmt: skip
    out = tmp_path / "wide.safetensors"
    _, card = export_encoder(folder, config, "wide", Format.SAFETENSORS, out)
    everything = out.read_bytes() + card.read_bytes()
    assert [word for word in telling if word.encode() not in everything] == []
    _, card = export_encoder(folder, config, "wide", Format.SAFETENSORS, out, for_others=True)
    everything = out.read_bytes() + card.read_bytes()
    assert [word for word in telling if word.encode() in everything] == []
    on = synthetic(size=40, test_size=20, seed=7)
    subject = open_file(WeightsFile(path=out), on)
    assert subject.encoder.inputs == Inputs(
        image_size=facts.image_size, mean=facts.mean, std=facts.std
    )


def test_an_encoder_for_others_tells_nothing_of_the_anchors(tmp_path) -> None:
    folder = tmp_path / "cut"
    config = compose_run(
        [
            "host=local", "data=synthetic", "data.options.size=200", "data.options.test_size=60",
            "steps=2", "steps_per_round=2", "batch_size=16", "eval.knn_k=10", "eval.linear=false",
            "partition=iid", "partition.anchors=0.5", "partition.least_images=16",
            "+data@partition.anchors_from=synthetic", "partition.anchors_from.options.size=90",
            "partition.anchors_from.options.seed=9", f"run_dir={folder}",
        ]
    )  # fmt: skip
    train(config)
    (start,) = read_starts(folder)
    assert start.provenance.anchors is not None
    anchors = start.provenance.anchors.fingerprint.encode()
    out = tmp_path / "wide.safetensors"
    export_encoder(folder, config, "wide", Format.SAFETENSORS, out)
    assert anchors in out.read_bytes()
    _, card = export_encoder(folder, config, "wide", Format.SAFETENSORS, out)
    seen = "100 private ones of these (partition=iid) and 45 anchors of synthetic"
    assert f"| trained on | {seen} |" in card.read_text() and seen.encode() in out.read_bytes()
    _, card = export_encoder(folder, config, "wide", Format.SAFETENSORS, out, for_others=True)
    everything = out.read_bytes() + card.read_bytes()
    assert anchors not in everything and b"private ones" not in everything


def test_scores_say_what_has_computed_them_and_of_which_weights(finished, copy) -> None:
    _, config = finished
    evaluate_run(copy, config, "knn", {"k": 5}, peers=["wide"])
    sheet = json.loads((copy / "evaluation" / "knn.json").read_text())
    summary = json.loads((copy / "summary.json").read_text())
    assert sheet["states"] == {"wide": summary["peers"]["wide"]["state_digest"]}
    assert sheet["origin"] == origin_here(torch.device("cpu"), source_digest())


def _evaluate_command(arguments: list[str]) -> None:
    evaluate_command.evaluate(compose_evaluation(arguments))


def test_another_folder_is_read_at_the_size_of_the_training_and_its_notes_are_told(
    finished, copy, tmp_path, capsys, caplog
) -> None:
    """At the loader's own size, larger images would lose detail or be blown up, without a word."""
    trained_on = 16
    noise_photos(tmp_path / "photos", 8, seed=3, side=3 * trained_on)
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    options = {"root": str(tmp_path / "photos"), "image_size": 64}
    data = DataConfig(name="image_folder", options=options)
    assert evaluate_command._data_set(data, None).image_size == 64
    with caplog.at_level("INFO"):
        assert evaluate_command._data_set(data, trained_on).image_size == trained_on
    assert f"read as those of the training: image_size={trained_on} and not 64" in caplog.text
    grey = {**options, "channels": 3, "ground": "black"}
    of_run = {"channels": 1, "ground": "grey", "labels": "none"}
    with caplog.at_level("INFO"):
        found = evaluate_command._data_set(
            dataclasses.replace(data, options=grey), trained_on, of_run
        )
    assert len(found.mean) == 1 and "channels=1 and not 3" in caplog.text
    assert "ground=grey" not in caplog.text, "another ground was typed"
    stored = dataclasses.replace(data, options={**options, "image_size": 8, "stored_size": 12})
    assert evaluate_command._data_set(stored, trained_on).image_size == trained_on
    photos = ["data=image_folder", f"data.options.root={tmp_path}/photos"]
    _evaluate_command([f"run={copy}", *photos, "protocol=knn", "protocol.knn.k=3"])
    said = capsys.readouterr().out
    assert "note: no train/ in" in said and "note: left out: no image: .txt (1)" in said
    assert "enlarged" not in caplog.text


def test_the_images_of_a_target_are_recorded_and_loaded_once(finished, copy, monkeypatch) -> None:
    _, config = finished
    loads: list[str] = []

    def load(settings, share):
        loads.append(settings.name)
        return dataset_with_test_part(settings, share)

    monkeypatch.setattr("dogo_fed.evaluation.protocols.ood.dataset_with_test_part", load)
    options = {"size": 100, "test_size": 60, "seed": 5}
    targets = [{"name": "synthetic", "options": options}]
    scores = evaluate_run(copy, config, "ood", {"targets": targets})
    assert len(scores) == 2 and loads == ["synthetic"], "not once for each peer"
    (condition,) = {score.condition for found in scores.values() for score in found}
    written = json.loads((copy / "evaluation" / "ood.json").read_text())
    facts = DataFacts.from_plain(written["targets"][condition])
    assert facts == DataFacts.of(build_dataset("synthetic", options))
    assert written["options"]["targets"] == targets
    (read,) = protocol_targets(copy, "ood")
    assert read == (written["options"], {condition: facts})


def test_images_that_are_enlarged_for_an_encoder_are_told(finished, caplog) -> None:
    folder, config = finished
    small = synthetic(size=40, test_size=20, image_size=8, seed=7)
    subjects = open_run(folder, config, on=small)
    evaluate_subjects(subjects, "knn", {"k": 3}, source="x")
    (line,) = [one.getMessage() for one in caplog.records if "enlarged" in one.getMessage()]
    assert "are 8 px wide, and are enlarged to the 16 px that" in line


def test_a_folder_that_takes_no_files_is_said_before_anything_is_computed(
    finished, copy, monkeypatch
) -> None:
    def evaluate(*given: object) -> None:
        raise AssertionError("nothing is computed")

    monkeypatch.setattr(evaluate_command, "evaluate_subjects", evaluate)
    (copy / "evaluation").write_text("a file in the folder's place")
    with pytest.raises(FileExistsError) as refusal:
        _evaluate_command([f"run={copy}", "protocol=knn"])
    assert refusal.value.filename == str(copy / "evaluation")


def test_scores_that_cannot_be_written_are_printed(finished, copy, monkeypatch, capsys) -> None:
    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left") as failure:
        _evaluate_command(
            [f"run={copy}", "protocol=[knn,linear]", "protocol.linear.epochs=2"],
        )
    assert failure.value.filename == str(copy / "evaluation" / "knn.json"), "the first of them"
    printed = capsys.readouterr().out
    assert printed.count("not written") == 2 and "knn" in printed and "linear" in printed
    assert not list((copy / "evaluation").iterdir())


# ---- sheets ----


def sheet(num_conditions: int = 2) -> ScoreSheet:
    scores = [
        Score("p", f"condition {c}", draw, "top1", 0.5 + 0.1 * draw, 0.4, 0.7, f"group {c % 3}", c)
        for c in range(num_conditions)
        for draw in range(2)
    ]
    scores.append(Score("p", "alone", 0, "top1", 0.25, 0.2, 0.3))
    scores.append(Score("p", "alone", 0, "uniformity", -1.5))
    return ScoreSheet(
        protocol="p", source="run", dataset="d", fingerprint="f", seed=0, options={},
        scores={"first": scores, "second": scores[:-1]},
        origin={"source": "s"}, states={"first": "1", "second": None},
    )  # fmt: skip


def test_means_over_draws() -> None:
    two, *_, one, other = means(sheet().scores["first"])
    assert two.mean == pytest.approx(0.55) and two.std == pytest.approx(0.1 / math.sqrt(2))
    assert math.isnan(two.low) and two.num_draws == 2
    assert (one.mean, one.low, one.high) == (0.25, 0.2, 0.3) and math.isnan(one.std)
    assert (other.metric, other.mean) == ("uniformity", -1.5)


@pytest.mark.parametrize("num_conditions, rows", [(2, 4), (30, 5)])
def test_table_and_picture_of_any_size(num_conditions: int, rows: int, tmp_path: Path) -> None:
    from rich.console import Console

    console = Console(width=120, record=True, file=io.StringIO())
    table = scores_table(sheet(num_conditions))
    assert table.row_count == rows
    console.print(table)
    text = console.export_text()
    assert "25.0 % [20.0, 30.0]" in text and "-1.500" in text
    write_sheet(sheet(num_conditions), tmp_path / "new", "p")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"p.json", "p.csv", "p.png"}


def test_a_picture_says_what_orders_conditions_and_shows_shares_in_percent() -> None:
    level = {"level_name": "dose", "level_is_share": True}
    scores = [
        Score("mine", f"dose {dose}", 0, "top1", 0.5, group="g", level=dose, **level)
        for dose in (0.1, 0.4)
    ]
    made = dataclasses.replace(sheet(), protocol="mine", scores={"one": scores})
    axes = score_plot._figure(made).axes[0]
    assert axes.get_xlabel() == "dose, %"
    assert axes.get_xticks().tolist() == pytest.approx([10, 40])


def test_scores_of_earlier_versions_are_read() -> None:
    """They do not say what their level is."""
    level = {"level_name": "dose", "level_is_share": True}
    now = Score("p", "c", 0, "top1", 0.5, 0.4, 0.6, "g", 0.1, **level)
    then = {key: one for key, one in dataclasses.asdict(now).items() if key not in level}
    read = Score(**then)
    assert (read.level_name, read.level_is_share) == ("level", False)
    assert dataclasses.replace(read, **level) == now
    axes = score_plot._figure(dataclasses.replace(sheet(), scores={"one": [read]})).axes[0]
    assert axes.get_xlabel() == "level"


def test_a_number_that_is_not_finite_is_empty(tmp_path: Path) -> None:
    _, table, _ = write_sheet(sheet(), tmp_path, "p")
    last = table.read_text().splitlines()[2 * 2 + 2]
    assert last == "first,p,alone,0,uniformity,-1.5,,,,"


# ---- the request ----


def test_the_protocol_files_are_the_defaults_of_the_functions() -> None:
    for name in PROTOCOLS:
        request = compose_evaluation(["run=x", f"protocol=[{name}]"])
        assert list(request.protocol) == [name]
        defaults = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in complete_options(name, {}).items()
        }
        assert dict(request.protocol[name]) == defaults


def test_several_protocols_and_their_options() -> None:
    arguments = as_lists(["run=x", "protocol=knn,limited_labels", "protocol.knn.k=7"])
    request = compose_evaluation(arguments)
    assert request.protocol["knn"]["k"] == 7 and set(request.protocol) == {"knn", "limited_labels"}
    assert as_lists(["protocol=[knn,knn]", "peer=a,b"]) == ["protocol=[knn]", "peer_names=[a,b]"]


WRONG = {
    "nothing to evaluate": ([], "name what to evaluate"),
    "two things": (["run=x", "checkpoint=y"], "name what to evaluate"),
    "unknown option": (["run=x", "+protocol.linear.epoch=3"], "no option 'epoch'"),
    "unknown key": (["run=x", "colour=red"], "colour"),
    "file without data": (["checkpoint=x.pt", "backbone=resnet18"], "needs data"),
    "file without a folder": (["checkpoint=x.pt", "data=digits", "backbone=resnet18"], "needs out"),
    "backbone of a run": (["run=x", "backbone=resnet18"], "backbone=... goes with checkpoint="),
    "peer of a file": (
        ["checkpoint=x", "peer_names=[a]", "backbone=resnet18", "data=digits", "out=o"],
        "peer=... goes with run=",
    ),
    "no thread": (["run=x", "threads=0"], "at least 1"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_wrong_requests_are_one_clear_sentence(what: str) -> None:
    overrides, message = WRONG[what]
    with pytest.raises(ConfigError, match=message) as refusal:
        compose_evaluation(overrides)
    assert len(str(refusal.value).splitlines()) == 1


def test_unknown_protocol_on_the_command_line() -> None:
    with pytest.raises(ConfigError, match="did you mean 'noisy_labels'"):
        as_lists(["protocol=knn,noisy_label"])
