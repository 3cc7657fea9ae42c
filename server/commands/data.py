"""`dogo-fed data`: loads a data set, says what it is and what suits it, and draws samples of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torchvision.utils import make_grid, save_image

from configs.compose import check_overrides, from_omegaconf
from configs.shorthand import in_full_for_hydra
from dogo_fed.atomic import atomic_path
from dogo_fed.config import RunConfig
from dogo_fed.data.adapt import resized
from dogo_fed.data.held_out import dataset_with_test_part
from dogo_fed.data.labels import num_labelled, why_no_accuracy
from dogo_fed.data.nearly_black import nearly_black
from dogo_fed.data.source import DataSet
from dogo_fed.engine.fit import FEWEST_IMAGES, usual_batch_size
from dogo_fed.errors import ConfigError, DogoError
from dogo_fed.evaluation.knn import usual_k
from dogo_fed.exit_status import EXIT_STOPPED, say, tell, tell_unexpected
from dogo_fed.text import one_line, some_of
from dogo_fed.typed_path import typed_path

OUT = Path("runs") / "data"
"""The folder without `out=`."""
SAMPLES = "samples.png"

_NUM_SAMPLES = 64
_SAMPLES_PER_ROW = 16
_LARGEST_SAMPLE = 96
_MOST_CLASSES = 8

_WORDS = {"run_dir": "out"}
"""What stands here for a setting of a run."""

_out: list[str] = []
"""What `out=` says; it is no setting of a run, so Hydra does not see it."""


def main() -> None:
    """Prints what a data set is, and writes a sheet of samples to `out=` or runs/data/<name>.

    All sites of a run must have the same fingerprint.
    """
    try:
        _out[:] = [
            argument.removeprefix("out=")
            for argument in sys.argv[1:]
            if argument.startswith("out=")
        ]
        settings = [argument for argument in sys.argv[1:] if not argument.startswith("out=")]
        arguments = in_full_for_hydra(settings, words=_WORDS)
        check_overrides(arguments, words=_WORDS)
    except ConfigError as error:
        sys.exit(tell(error))
    sys.argv[1:] = arguments
    _main()


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="run")
def _main(composed: DictConfig) -> None:
    try:
        config = from_omegaconf(composed, HydraConfig.get().overrides.task)
        dataset = dataset_with_test_part(config.data, config.eval.test_share)
        sys.stdout.write("".join(f"{line}\n" for line in describe(dataset, config)))
        folder = typed_path(_out[-1]) if _out else usual_folder(dataset)
        folder.mkdir(parents=True, exist_ok=True)
        draw_samples(dataset, folder / SAMPLES)
    except (DogoError, OSError) as error:
        sys.exit(tell(error))
    except Exception as error:
        sys.exit(tell_unexpected(error))
    except KeyboardInterrupt:
        sys.exit(say("stopped; images that were decoded may be decoded again", EXIT_STOPPED))
    sys.stdout.write(f"samples      {one_line(folder / SAMPLES)}\n")


def usual_folder(dataset: DataSet) -> Path:
    """Returns the folder in which a data set's samples are without `out=`."""
    return OUT / Path(dataset.title.replace(":", "-")).name


def describe(dataset: DataSet, config: RunConfig) -> Iterator[str]:
    """Yields the lines that say what a data set is, what was left out, and what suits it."""
    side, channels = dataset.image_size, len(dataset.mean)
    stored = dataset.train.images(torch.tensor([0])).shape[-1]
    larger = f", stored at {stored} x {stored}" if stored != side else ""
    yield f"data set     {one_line(dataset.title)}"
    yield f"training     {len(dataset.train)} images"
    yield f"test         {len(dataset.test)} images"
    yield f"image size   {side} x {side}, {channels} channel{'s' * (channels > 1)}{larger}"
    yield f"classes      {describe_classes(dataset)}"
    yield f"fingerprint  {dataset.fingerprint}"
    yield from (f"note         {one_line(note)}" for note in dataset.notes)
    yield from (f"fits         {line}" for line in _what_fits(dataset, config, stored))


def _what_fits(dataset: DataSet, config: RunConfig, stored: int) -> Iterator[str]:
    """Yields settings that suit the data set."""
    number = len(dataset.train)
    batch_size = usual_batch_size(number)
    if number < FEWEST_IMAGES:
        yield f"nothing: a step compares at least {FEWEST_IMAGES} images with each other"
        return
    yield f"batch_size={batch_size} ({number // batch_size} steps an epoch)" + (
        f"; you gave {config.batch_size}" if config.batch_size is not None else ", the default here"
    )
    reason = why_no_accuracy(dataset)
    if reason is None:
        yield f"eval.knn_k={usual_k(num_labelled(dataset.train.labels))}, the default here"
    else:
        yield f"no kNN and no linear probe: {reason}"
    views = sorted({peer.augmentation.name for peer in config.peers.values()})
    yield f"views of the recipe {' and '.join(views)}; peers.<name>.augmentation= names another"
    if stored >= 2 * dataset.image_size and dataset.image_size < 224:
        yield (
            f"data.options.image_size={min(2 * dataset.image_size, 224)}, since the images are larger "
            f"than {dataset.image_size} px; a step takes longer then"
        )
    yield from nearly_black(dataset, config.data.options)


def describe_classes(dataset: DataSet) -> str:
    """Returns the number of classes, and of training images for each and without one."""
    labels_N = dataset.train.labels
    without = int((labels_N < 0).sum())
    if without == len(labels_N):
        return "no training image has one"
    counts = labels_N[labels_N >= 0].bincount(minlength=dataset.num_classes).tolist()
    fewest, most = min(counts), max(counts)
    each = f"{most}" if fewest == most else f"{fewest} to {most}"
    rest = f"; {without} training images without one" if without else ""
    if not dataset.class_names:
        return f"{dataset.num_classes}, {each} training images each{rest}"
    named = [
        f"{one_line(name, 40)} {number}"
        for name, number in zip(dataset.class_names, counts, strict=True)
    ]
    return f"{dataset.num_classes}, {each} training images each ({some_of(named, _MOST_CLASSES)}){rest}"


def draw_samples(dataset: DataSet, path: Path) -> None:
    """Writes a sheet of training images, evenly spaced, because many sets are sorted by class."""
    number = min(_NUM_SAMPLES, len(dataset.train))
    ids = torch.arange(number) * len(dataset.train) // number
    images_NCHW = dataset.train.images(ids)
    images_NCHW = resized(images_NCHW, min(_LARGEST_SAMPLE, images_NCHW.shape[-1]))
    sheet = make_grid(images_NCHW.float() / 255, nrow=_SAMPLES_PER_ROW, padding=2)
    with atomic_path(path) as temporary:
        save_image(sheet, temporary, format="png")
