"""A component that is not there: the name was wrong, or a package is missing that can be installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from dogo_fed import components
from dogo_fed.engine.catalog import OPTIMIZERS
from dogo_fed.errors import ConfigError, OwnCodeError


def the_error(name: str, known: dict[str, str]) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        components.resolve("thing", name, known)
    return caught.value


@pytest.mark.parametrize("module", ["my_pakage", "my_pakage.data", "my_pakage.data.sets"])
def test_a_module_that_is_not_there_is_a_wrong_name_and_no_code_of_ones_own(module: str) -> None:
    error = the_error(f"{module}:load", {})
    assert not isinstance(error, OwnCodeError)
    assert f"module '{module}' can't be imported" in str(error)
    assert "pip install" not in str(error)


def test_a_module_that_lacks_another_is_code_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dogo_test_package").mkdir()
    (tmp_path / "dogo_test_package" / "__init__.py").write_text("")
    (tmp_path / "dogo_test_package" / "data.py").write_text("import dogo_test_no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert isinstance(the_error("dogo_test_package.data:load", {}), OwnCodeError)


def test_lars_without_timm_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_timm(name: str) -> object:
        raise ModuleNotFoundError("No module named 'timm'", name="timm")

    monkeypatch.setattr(components.importlib, "import_module", without_timm)
    error = the_error("lars", OPTIMIZERS)
    assert not isinstance(error, OwnCodeError)
    assert "No module named 'timm'; install it: pip install 'dogo-fed[timm]'" in str(error)


def test_code_that_does_not_take_our_arguments_is_told_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "takes_little.py").write_text(
        "def net(side): return 3\n"
        "def in_part(in_channels): return 3\n"
        "def open_net(**others): return others\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    ours = {"image_size": 8, "in_channels": 3}
    for name in ("net", "in_part"):
        with pytest.raises(ConfigError, match=r"image_size, in_channels by .* no .*'image_size'"):
            components.build("backbone", f"takes_little:{name}", {}, {}, **ours)
    assert components.build("backbone", "takes_little:open_net", {}, {}, **ours) == ours
