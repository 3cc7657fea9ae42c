"""A folder of photos without labels, from the first command to an encoder, as a newcomer would."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.command_line import dogo_fed, run_python

NUMBER = 48
FORMATS = ("jpg", "png", "webp", "bmp", "tif", "gif")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a flat folder of images in several formats and sizes, and files that are none."""
    folder = tmp_path_factory.mktemp("phone") / "my photos (2024)"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(NUMBER):
        height, width = draw.integers(40, 90, 2)
        pixels = draw.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels).resize((int(width), int(height)))
        picture.save(folder / f"IMG_{number:04d}.{FORMATS[number % len(FORMATS)]}")
    (folder / "notes.txt").write_text("x")
    (folder / ".DS_Store").write_text("x")
    return folder


@pytest.fixture(scope="module")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    run_dir = tmp_path_factory.mktemp("own") / "run"
    output = dogo_fed(
        "train", f"data={photos}", "host=local", "rounds=2", "data.options.image_size=16",
        f"run_dir={run_dir}",
    )  # fmt: skip
    return run_dir, output


def test_the_table_shows_the_health_of_the_features(trained: tuple[Path, str]) -> None:
    run_dir, output = trained
    assert "rank untrained -> trained" in output and "kNN untrained" not in output
    assert "data: no kNN and no linear probe: no training image has a class" in output
    assert "data: left out: hidden (1), no image: .txt (1)" in output
    assert "5 of 48 images are held out" in output
    summary = json.loads((run_dir / "summary.json").read_text())
    for peer in summary["peers"].values():
        assert peer["knn_top1"] is None and peer["linear_top1"] is None
        assert all(
            math.isfinite(peer[name]) for name in ("rankme", "rankme_untrained", "alignment")
        )
    assert (run_dir / "curves.png").stat().st_size > 10_000


def test_the_settings_that_nobody_named_are_in_the_folder(trained: tuple[Path, str]) -> None:
    assert "batch_size: 16" in (trained[0] / "config.yaml").read_text()


@pytest.mark.slow
def test_health_goes_on_when_the_run_does(trained: tuple[Path, str]) -> None:
    run_dir, _ = trained
    before = json.loads((run_dir / "summary.json").read_text())
    dogo_fed("train", f"resume={run_dir}", "rounds=3")
    after = json.loads((run_dir / "summary.json").read_text())
    for name, peer in after["peers"].items():
        assert peer["rankme_untrained"] == before["peers"][name]["rankme_untrained"]
    records = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    rounds = [one["round"] for one in records if one["type"] == "round" and one["peer"] == "wide"]
    assert rounds == [0, 1, 2, 3]


@pytest.mark.slow
def test_what_needs_labels_says_so(trained: tuple[Path, str]) -> None:
    output = dogo_fed("evaluate", f"run={trained[0]}", "protocol=knn", expect=2)
    assert "no accuracy can be counted: no training image has a class" in output
    assert "Traceback" not in output
    assert "rankme" in dogo_fed("evaluate", f"run={trained[0]}", "protocol=health")


def test_the_encoder_is_there(trained: tuple[Path, str], tmp_path: Path) -> None:
    script = tmp_path / "use.py"
    script.write_text(
        "import sys\nfrom safetensors.torch import load_file\nprint(len(load_file(sys.argv[1])))\n"
    )
    encoder = trained[0] / "peers" / "wide" / "encoder.safetensors"
    assert int(run_python([str(script), str(encoder)], tmp_path)) > 10


def test_data_says_what_is_there_and_what_fits(photos: Path, tmp_path: Path) -> None:
    before = sorted(photos.parent.rglob("*.png"))
    output = dogo_fed("data", f"data={photos}", f"out={tmp_path}/look", cwd=tmp_path)
    for expected in (
        "training     43 images",
        "test         5 images",
        "no training image has one",
        "note         left out: hidden (1), no image: .txt (1)",
        "fits         batch_size=16 (2 steps an epoch), the default here",
        "fits         no kNN and no linear probe",
    ):
        assert expected in output, output
    assert (tmp_path / "look" / "samples.png").stat().st_size > 1000
    assert sorted(photos.parent.rglob("*.png")) == before
    assert [path.name for path in tmp_path.iterdir()] == ["look"]


def test_a_module_in_the_current_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "my_images.py").write_text(
        "import numpy as np\n"
        "class Flat:\n"
        "    def __len__(self):\n        return 40\n"
        "    def __getitem__(self, index):\n"
        "        return np.full((8, 8), index, dtype=np.uint16)\n"
    )
    output = dogo_fed("data", "data=own", "data.name=my_images:Flat", cwd=tmp_path)
    assert "training     36 images" in output and "nearly black" in output


@pytest.mark.slow
def test_a_comparison_without_labels_is_not_judged(photos: Path, tmp_path: Path) -> None:
    dogo_fed(
        "compare", "methods=[solo,dogo]", "seeds=[0]", "peers=[pair]", f"data={photos}", "rounds=1",
        "data.options.image_size=16", "batch_size=16", f"out={tmp_path}/out",
    )  # fmt: skip
    page = (tmp_path / "out" / "compare.md").read_text()
    assert "effective rank (no labels, so not judged)" in page and "not judged" in page
    assert "helps" not in page.split("## Cost")[0].split("Mean")[0]


@pytest.mark.slow
def test_supervised_training_says_that_labels_are_missing(photos: Path, tmp_path: Path) -> None:
    output = dogo_fed(
        "train", f"data={photos}", "host=local", "peers.wide.objective=supervised",
        f"run_dir={tmp_path}/run", expect=2,
    )  # fmt: skip
    assert "label" in output and "Traceback" not in output
