"""What a run leaves is for its owner alone, in every host, and whatever the user's umask is."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.compose import compose_run
from dogo_fed.config_text import load_run_config
from dogo_fed.run.evaluate import evaluate_run
from dogo_fed.run.export import Format, export_encoder
from dogo_fed.run.matrix import Matrix, write_matrix
from dogo_fed.run.train import train
from tests.support.command_line import dogo_fed
from tests.support.tiny_run import TINY

RUN = [part for part in TINY if not part.startswith("host=")]
COMPARED = [part for part in RUN if not part.startswith("data=")]


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """A user whose files everybody may read and change, unless a program thinks of it."""
    earlier = os.umask(0)
    yield
    os.umask(earlier)


def open_to_others(folder: Path) -> dict[str, str]:
    """Returns what is not 700 (folders) or 600 (files), with what it is."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if mode != (0o700 if path.is_dir() else 0o600):
            found[str(path.relative_to(folder))] = oct(mode)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "host",
    [
        "local",
        pytest.param("processes", marks=pytest.mark.grpc),
        pytest.param("ray", marks=pytest.mark.ray),
    ],
)
def test_a_run_is_private(host: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    dogo_fed("train", *RUN, f"host={host}", f"run_dir={folder}")
    names = {path.name for path in folder.rglob("*")}
    assert {"encoder.safetensors", "summary.json", "curves.png", "checkpoints"} <= names
    assert ("peer.log" in names) is (host != "local")
    assert open_to_others(folder) == {}


@pytest.mark.slow
@pytest.mark.flower
def test_a_run_under_flower_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    dogo_fed("flower", *RUN, f"run_dir={folder}", timeout_s=300)
    assert open_to_others(folder) == {}


@pytest.mark.slow
def test_what_commands_add_is_private(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    dogo_fed("train", *RUN, "peers=solo", "host=local", f"run_dir={runs / 'first'}")
    dogo_fed("train", f"resume={runs / 'first'}", "steps=4")
    dogo_fed(
        "evaluate",
        f"run={runs / 'first'}",
        "protocol=linear",
        "protocol.linear.epochs=1",
        f"out={runs / 'scores'}",
    )
    dogo_fed(
        *("compare", "peers=[pair]", "data=[synthetic]", "methods=[dogo]", "seeds=[0]"),
        *("protocols=[linear]", "protocols.linear.epochs=1", *COMPARED, f"out={runs / 'compare'}"),
    )
    dogo_fed("export", f"run={runs / 'first'}", f"out={runs / 'exported.safetensors'}")
    dogo_fed("anchors", "make", "data=synthetic", f"out={runs / 'anchors.json'}")
    dogo_fed("data", "data=synthetic", f"out={runs / 'data'}")
    assert (runs / "compare" / "compare.csv").is_file()
    assert open_to_others(runs) == {}


def test_a_library_user_keeps_his_umask(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(compose_run([*TINY, "peers=solo", f"run_dir={folder}"]))
    config = load_run_config(folder)
    evaluate_run(folder, config, "linear", {"epochs": 1})
    export_encoder(folder, config, next(iter(config.peers)), Format.SAFETENSORS)
    write_matrix(Matrix(accuracies={"a": {"a": 0.5}}, sizes={"a": 1}, reasons={}), folder)
    assert {"export", "evaluation"} <= {path.name for path in folder.iterdir()}
    assert open_to_others(folder) == {}
    assert os.umask(0) == 0


@pytest.mark.slow
def test_pixels_are_for_those_who_may_read_the_images(tmp_path: Path) -> None:
    from PIL import Image

    images = tmp_path / "images"
    for split in ("train", "test"):
        for label in ("a", "b"):
            (images / split / label).mkdir(parents=True)
            for number in range(8):
                Image.new("RGB", (8, 8), (number, 0, 0)).save(
                    images / split / label / f"{number}.png"
                )
    # Another size of the stored images each time, so that they are decoded again.
    for side, shared, folders, files in ((8, 0o755, 0o755, 0o644), (4, 0o750, 0o750, 0o640)):
        images.chmod(shared)
        dogo_fed(
            *("data", "data=image_folder", f"data.options.root={images}"),
            *(f"data.options.image_size={side}", f"data.options.stored_size={side}"),
            cwd=tmp_path,
        )
        newest = max((images / ".dogo_fed_cache").iterdir(), key=lambda path: path.stat().st_mtime)
        assert stat.S_IMODE(newest.stat().st_mode) == folders
        assert {stat.S_IMODE(path.stat().st_mode) for path in newest.iterdir()} == {files}
