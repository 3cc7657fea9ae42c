"""What is told before a run: what there is to know about the weights that its peers start from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from configs.compose import compose_run
from configs.resume import resumed
from dogo_fed.config import RunConfig
from dogo_fed.engine.loaded_run import load_run
from dogo_fed.errors import ConfigError
from dogo_fed.reporting.summary import print_summary
from dogo_fed.run.prepare import prepare, traffic_of
from tests.support.run_watch import digests
from tests.support.tiny_run import TINY, run_here

PEER = "simclr"


def config_of(*overrides: str) -> RunConfig:
    return compose_run([*TINY, "peers=simclr_simsiam", *overrides])


def backbone_of(config: RunConfig) -> dict[str, torch.Tensor]:
    peer = prepare(config).build_peer(PEER, torch.device("cpu"))
    return {name: one.clone() for name, one in peer.objective.backbone.state_dict().items()}


@pytest.fixture(scope="module")
def elsewhere() -> dict[str, torch.Tensor]:
    """The weights of a backbone of another seed."""
    return backbone_of(config_of("seed=7"))


@pytest.fixture
def file(elsewhere, tmp_path: Path) -> Path:
    """A student and its teacher in one file: the second is the one that is wanted."""
    student = {f"module.{name}": torch.zeros_like(one) for name, one in elsewhere.items()}
    path = tmp_path / "dino.pth"
    torch.save({"student": student, "teacher": elsewhere}, path)
    return path


@pytest.mark.parametrize(
    "setting", [[f"peers.{PEER}.init"], ["exchange.rows=features", f"peers.{PEER}.frozen_from"]]
)
def test_what_there_is_to_know_of_weights_is_in_terminal_and_summary(
    setting, file, elsewhere, tmp_path, capsys
) -> None:
    *others, name = setting
    summary = run_here(config_of(*others, f"{name}={file}", f"run_dir={tmp_path}/run"))
    found = [event["message"] for event in summary["events"] if event["kind"] == "weights"]
    number = len(elsewhere)
    assert found[0] == f"peer {PEER}: {file}: {number} names fit after 'student.module.'"
    assert found[1].startswith(f"peer {PEER}: {file}: not used: teacher.")
    print_summary(summary)
    shown = " ".join(capsys.readouterr().out.split())
    assert f"weights: peer {PEER}: " in shown and f"{number} names fit after" in shown


def test_a_run_whose_weights_are_drawn_has_nothing_to_say_of_them() -> None:
    assert prepare(config_of()).weights_notes == ()


def test_a_prefix_that_is_given_is_taken(file, elsewhere) -> None:
    config = config_of(f"peers.{PEER}.init={file}", f"peers.{PEER}.weights_prefix=teacher.")
    assert config.peers[PEER].weights_prefix == "teacher."
    found = backbone_of(config)
    assert all(torch.equal(found[name], one) for name, one in elsewhere.items())
    with pytest.raises(ConfigError, match=f"init={file}: .* does not fit the backbone"):
        prepare(config_of(f"peers.{PEER}.init={file}", f"peers.{PEER}.weights_prefix=nowhere."))


def test_a_run_goes_on_without_the_file_of_its_first_weights(file, tmp_path) -> None:
    """It may have been moved; the checkpoint has the weights. To begin again, it is needed."""
    run_here(config_of(f"peers.{PEER}.init={file}", f"run_dir={tmp_path}/run"))
    run_here(config_of(f"peers.{PEER}.init={file}", "steps=4", f"run_dir={tmp_path}/whole"))
    file.unlink()
    longer = [f"resume={tmp_path}/run", "steps=4"]
    run_here(resumed(compose_run(longer), longer))
    assert digests(tmp_path / "run") == digests(tmp_path / "whole")
    afresh = [f"resume={tmp_path}/run", "afresh=true"]
    with pytest.raises(ConfigError, match=f"init={file}"):
        prepare(resumed(compose_run(afresh), afresh))


@pytest.mark.parametrize("teacher", ["live", "ema"])
def test_a_run_goes_on_without_the_file_of_its_frozen_teacher(file, tmp_path, teacher) -> None:
    frozen = ["exchange.rows=features", f"peers.{PEER}.frozen_from={file}"]
    frozen += [f"peers.{PEER}.teacher={teacher}"]
    run_here(config_of(*frozen, f"run_dir={tmp_path}/run"))
    run_here(config_of(*frozen, "steps=4", f"run_dir={tmp_path}/whole"))
    file.unlink()
    longer = [f"resume={tmp_path}/run", "steps=4"]
    run_here(resumed(compose_run(longer), longer))
    assert digests(tmp_path / "run") == digests(tmp_path / "whole")


def test_a_teacher_whose_file_is_gone_is_no_site_either(file) -> None:
    """Else the others would go on with other private images."""
    config = config_of(
        "exchange.rows=features", f"peers.{PEER}.frozen_from={file}", "partition=iid",
        "partition.anchors=0.4", "partition.least_images=8",
    )  # fmt: skip

    def parts():
        cut = load_run(config).cut
        assert cut is not None
        return {name: part.fingerprint for name, part in cut.private.items()}

    before = parts()
    assert set(before) == {"simsiam"}
    file.unlink()
    assert parts() == before


@pytest.mark.parametrize(
    ("graph", "ending"),
    [
        ([], "and receives as much"),
        (
            ["exchange.graph={simclr: {simsiam: 1}}"],
            "and receives as much; simsiam without a teacher: nothing comes back",
        ),
    ],
)
def test_what_will_travel_is_told_of_those_who_have_a_teacher(graph, ending) -> None:
    told = traffic_of(load_run(config_of("host=processes", *graph)))
    assert told is not None and told.endswith(ending)


def test_a_prefix_without_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name the file by init or frozen_from"):
        config_of(f"peers.{PEER}.weights_prefix=teacher.")
    frozen = (f"peers.{PEER}.frozen_from={tmp_path}", f"peers.{PEER}.weights_prefix=teacher.")
    with pytest.raises(ConfigError, match="is a run folder; leave it out"):
        prepare(config_of(*frozen))
