"""`dogo-fed data`: loads the data set of a configuration, describes it, and draws samples of it."""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig
from torchvision.utils import make_grid, save_image

from configs.compose import check_overrides, from_omegaconf
from dogo_fed.atomic import atomic_path
from dogo_fed.data.datasets import build_dataset
from dogo_fed.data.source import DataSet
from dogo_fed.errors import ConfigError, DogoError
from dogo_fed.exit_status import tell

_NUM_SAMPLES = 64
_SAMPLES_PER_ROW = 16


def main() -> None:
    """Prints the sizes and the fingerprint of the data set, and writes <name>-samples.png.

    All sites of a run must have the same fingerprint.
    """
    try:
        check_overrides(sys.argv[1:])
    except ConfigError as error:
        sys.exit(tell(error))
    _main()


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="run")
def _main(composed: DictConfig) -> None:
    try:
        config = from_omegaconf(composed)
        dataset = build_dataset(config.data.name, config.data.options)
        picture = Path(f"{Path(dataset.name).name}-samples.png")
        draw_samples(dataset, picture)
    except (DogoError, OSError) as error:
        sys.exit(tell(error))
    sys.stdout.write(
        f"data set     {dataset.name}\n"
        f"training     {len(dataset.train)} images\n"
        f"test         {len(dataset.test)} images\n"
        f"image size   {dataset.image_size} x {dataset.image_size}, {len(dataset.mean)} channels\n"
        f"classes      {dataset.num_classes}{describe_classes(dataset)}\n"
        f"fingerprint  {dataset.fingerprint}\n"
        f"samples      {picture}\n"
    )


def describe_classes(dataset: DataSet) -> str:
    """Returns a phrase with the number of training images for each class, and without a class."""
    labels_N = dataset.train.labels
    counts = labels_N[labels_N >= 0].bincount(minlength=dataset.num_classes)
    fewest, most = int(counts.min()), int(counts.max())
    each = f"{most}" if fewest == most else f"{fewest} to {most}"
    unknown = int((labels_N < 0).sum())
    return f", {each} training images each" + (f"; {unknown} without a class" if unknown else "")


def draw_samples(dataset: DataSet, path: Path) -> None:
    """Writes a sheet of training images, evenly spaced, because many sets are sorted by class."""
    number = min(_NUM_SAMPLES, len(dataset.train))
    ids = torch.arange(number) * len(dataset.train) // number
    sheet = make_grid(dataset.train.images(ids).float() / 255, nrow=_SAMPLES_PER_ROW, padding=2)
    with atomic_path(path) as temporary:
        save_image(sheet, temporary, format="png")
