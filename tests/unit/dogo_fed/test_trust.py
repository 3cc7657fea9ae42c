"""A run folder may name code only if this user has run its settings, or says that he trusts them."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.compose import compose_run
from configs.resume import resumed
from dogo_fed import load_run_config
from dogo_fed.config import ComponentConfig, RunConfig
from dogo_fed.config_text import from_mapping, to_mapping, to_yaml
from dogo_fed.errors import ConfigError
from dogo_fed.storage.run_folder import create
from dogo_fed.trust import STATE_VARIABLE

SETTINGS = ("data=synthetic", "peers=solo", "steps=2", "host=local")
ELSEWHERE = "their_module:load"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    monkeypatch.setenv(STATE_VARIABLE, str(folder))
    return folder


def with_setting(path: str, value: object) -> RunConfig:
    """The settings with one that is changed, without a command line."""
    content: Any = to_mapping(compose_run(SETTINGS))
    (peer,) = content["peers"]
    place, *parts = content, *path.replace("PEER", peer).split(".")
    for part in parts[:-1]:
        place = place[part]
    place[parts[-1]] = value
    return from_mapping(content)


def somebody_elses(folder: Path, config: RunConfig) -> Path:
    """A run folder that no run of this user has written."""
    folder.mkdir()
    (folder / "config.yaml").write_text(to_yaml(config))
    return folder


PLACES = [
    ("data.name", ELSEWHERE),
    ("data.options", {"base": ELSEWHERE}),
    ("data.options", {"several": [{"name": ELSEWHERE}]}),
    ("baseline", {"name": ELSEWHERE}),
    ("partition", {"kind": "iid", "anchors_from": {"name": ELSEWHERE}}),
    ("peers.PEER.backbone.name", ELSEWHERE),
    ("peers.PEER.backbone.options", {"block": ELSEWHERE}),
    ("peers.PEER.data", {"name": ELSEWHERE}),
    ("peers.PEER.objective.name", ELSEWHERE),
    ("peers.PEER.augmentation.name", ELSEWHERE),
    ("peers.PEER.optimizer.name", ELSEWHERE),
]


@pytest.mark.parametrize(("setting", "value"), PLACES)
def test_code_in_somebody_elses_settings_is_told_with_its_place(
    setting: str, value: object, tmp_path: Path
) -> None:
    folder = somebody_elses(tmp_path / "run", with_setting(setting, value))
    with pytest.raises(ConfigError, match="trust=true") as caught:
        load_run_config(folder)
    said = str(caught.value)
    assert str(folder / "config.yaml") in said and f"={ELSEWHERE}" in said
    assert setting.split(".")[-1] in said and "\n" not in said


@pytest.mark.parametrize("name", ["torchvision:torch.hub.load", "timm:create_model"])
@pytest.mark.parametrize(("setting", "value"), PLACES)
def test_a_model_of_a_library_is_a_backbone_and_nothing_else(
    setting: str, value: object, name: str, tmp_path: Path
) -> None:
    """Anywhere else such a name is the path of whatever these packages have imported."""
    changed = json.loads(json.dumps(value).replace(ELSEWHERE, name))
    folder = somebody_elses(tmp_path / "run", with_setting(setting, changed))
    if setting == "peers.PEER.backbone.name":
        load_run_config(folder)  # which builds no model that the library does not list
        return
    with pytest.raises(ConfigError, match=f"={name}, which would run code"):
        load_run_config(folder)


def test_every_component_of_a_peer_is_looked_at() -> None:
    """A component that is added to a peer is covered by `PLACES`, or this fails."""
    (peer,) = compose_run(SETTINGS).peers.values()
    components = {
        f"peers.PEER.{one.name}.name"
        for one in dataclasses.fields(peer)
        if isinstance(getattr(peer, one.name), ComponentConfig)
    }
    assert components <= {setting for setting, _ in PLACES}


def test_settings_that_name_no_code_are_nobodys_business(tmp_path: Path, state: Path) -> None:
    config = with_setting("peers.PEER.backbone.name", "timm:resnet18")
    assert load_run_config(somebody_elses(tmp_path / "run", config)) == config
    create(dataclasses.replace(config, run_dir=str(tmp_path / "mine")))
    assert not state.exists()


def test_ones_own_run_is_followed_wherever_its_folder_goes(tmp_path: Path) -> None:
    config = with_setting("data.name", ELSEWHERE)
    folder = create(dataclasses.replace(config, run_dir=str(tmp_path / "mine"))).path
    assert load_run_config(folder).data.name == ELSEWHERE
    assert load_run_config(folder.rename(tmp_path / "moved")).data.name == ELSEWHERE


def test_an_edited_file_asks_again(tmp_path: Path) -> None:
    config = with_setting("data.name", ELSEWHERE)
    folder = create(dataclasses.replace(config, run_dir=str(tmp_path / "mine"))).path
    path = folder / "config.yaml"
    for changed in (path.read_text().replace(ELSEWHERE, "other:load"), path.read_text() + "\n"):
        path.write_text(changed)
        with pytest.raises(ConfigError, match="changed since"):
            load_run_config(folder)


def test_what_is_trusted_once_is_remembered_outside_the_folder(tmp_path: Path, state: Path) -> None:
    folder = somebody_elses(tmp_path / "run", with_setting("data.name", ELSEWHERE))
    before = sorted(folder.rglob("*"))
    load_run_config(folder, trust=True)
    assert load_run_config(folder).data.name == ELSEWHERE
    assert sorted(folder.rglob("*")) == before
    for path in (state, *state.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_a_folder_can_not_say_that_it_is_trusted(tmp_path: Path) -> None:
    folder = somebody_elses(tmp_path / "run", with_setting("data.name", ELSEWHERE))
    content = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump({**content, "trust": True}))
    with pytest.raises(ConfigError):
        load_run_config(folder)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("ray.address", "10.0.0.1:6379"),
        ("ray.address", "auto"),
        ("coordinator.public_address", "elsewhere.example:443"),
        ("coordinator.address", "0.0.0.0"),
    ],
)
def test_where_others_are_met_counts_for_a_run_that_goes_on_and_not_for_an_evaluation(
    setting: str, value: str, tmp_path: Path
) -> None:
    config = with_setting(setting, value)
    folder = somebody_elses(tmp_path / "run", config)
    assert load_run_config(folder, trust=True) == config  # trusts nothing, there is no code
    with pytest.raises(ConfigError, match=re.escape(f"{setting}={value}")):
        load_run_config(folder, to_go_on=True)
    load_run_config(folder, trust=True, to_go_on=True)
    assert load_run_config(folder, to_go_on=True) == config


@pytest.mark.parametrize("setting", ["coordinator.public_address", "coordinator.address"])
def test_ones_own_run_goes_on_where_it_listened(setting: str, tmp_path: Path) -> None:
    config = with_setting(setting, "10.0.0.1:443")
    folder = create(dataclasses.replace(config, run_dir=str(tmp_path / "mine"))).path
    assert load_run_config(folder, to_go_on=True).coordinator == config.coordinator


def test_resume_asks_and_takes_the_word(tmp_path: Path) -> None:
    folder = somebody_elses(tmp_path / "run", with_setting("data.name", ELSEWHERE))
    given = [f"resume={folder}"]
    with pytest.raises(ConfigError, match=f"data.name={ELSEWHERE}"):
        resumed(compose_run(given), given)
    with pytest.raises(ConfigError, match="trust=true"):
        resumed(compose_run([*given, "trust=false"]), [*given, "trust=false"])
    given = [*given, "trust=true"]
    assert resumed(compose_run(given), given).data.name == ELSEWHERE


@pytest.mark.parametrize(
    ("override", "said"), [("trust=true", "resume=<run folder>"), ("trust=maybe", "true or false")]
)
def test_trust_makes_no_sense_elsewhere(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose_run([*SETTINGS, override])


def test_what_can_not_be_remembered_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "file"))
    folder = somebody_elses(tmp_path / "run", with_setting("data.name", ELSEWHERE))
    with caplog.at_level(logging.WARNING):
        assert load_run_config(folder, trust=True).data.name == ELSEWHERE
    assert "can't be remembered" in caplog.text and STATE_VARIABLE in caplog.text


def test_the_notes_are_where_the_system_has_such_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(STATE_VARIABLE)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = somebody_elses(tmp_path / "run", with_setting("data.name", ELSEWHERE))
    for base, where in (("relative", "home/.local/state"), (str(tmp_path / "xdg"), "xdg")):
        monkeypatch.setenv("XDG_STATE_HOME", base)
        load_run_config(folder, trust=True)
        assert len(list((tmp_path / where / "dogo-fed" / "trusted").iterdir())) == 1
