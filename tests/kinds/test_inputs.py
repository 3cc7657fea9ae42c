"""The kinds of inputs name what they are about, so that a row of the table proves something."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from configs.compose import compose_run
from configs.shorthand import in_full
from dogo_fed.data.datasets import build_dataset
from dogo_fed.models.stem import is_small
from tests.kinds import inputs
from tests.kinds.inputs import KINDS


@pytest.mark.parametrize("name", [one for one in KINDS if one.startswith("init: ")])
def test_weights_go_into_a_network_that_can_take_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "_resnet18", lambda: {"conv1.weight": torch.zeros(1)})
    config = compose_run(in_full(KINDS[name](tmp_path)))
    assert not is_small(config.data.options["image_size"])
    wide = config.peers["wide"]
    assert wide.backbone.name == "resnet18" and wide.init is not None and Path(wide.init).is_file()


@pytest.mark.parametrize(
    ("name", "loader", "package"),
    [
        ("webdataset shards (.tar)", "webdataset", "webdataset"),
        ("a data set of Hugging Face, saved to disk", "hf_dataset", "datasets"),
    ],
)
def test_what_is_no_folder_of_images_is_read_by_its_own_loader(
    name: str, loader: str, package: str, tmp_path: Path
) -> None:
    pytest.importorskip(package)
    data = compose_run(in_full(KINDS[name](tmp_path))).data
    assert data.name == loader
    assert len(build_dataset(data.name, data.options).train) == 72
