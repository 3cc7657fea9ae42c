"""How fast two views of a batch are made: this project's, torchvision's, kornia's and lightly's.

    python -m benchmarks.data_path [--image-sizes 32 224] [--folder-sizes 224] [--folder-images 512]
        [--batch-size 64] [--rounds 5] [--threads 1] [--device auto]

All make SimCLR's views (crop, flip, colours, grey; blur from 224 pixels) of the same images. torchvision and
lightly work image by image from PIL, as the libraries' own examples do, kornia and this project in batches.

memory    the images are in memory, decoded; on a GPU this project's lie on the device, as in a run
folder    the images are JPEG files, a seventh larger than the views. This project reads the pixels that it
          has decoded once, before the clock runs; on demand, and the others, decode a file whenever it is
          asked for. On demand has a thread for every core, whatever --threads says.
          --folder-images makes the folder as large as the disk may need to be felt.

Contestants take turns. What counts is processor time; on a GPU, wall time. Libraries that are not installed
are left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import kornia_stand_in
from benchmarks.images import MEAN, STD, images_uint8, pictures, torchvision_view, write_folder
from benchmarks.machine import Result
from benchmarks.turns import Found, Took, clocked, entered, finish, spread, take_turns, told
from dogo_fed.data.augment import BLUR_FROM_PIXELS, build_augmentation
from dogo_fed.data.datasets import build_dataset
from dogo_fed.data.source import ImageSource
from dogo_fed.engine.numerics import fix_numerics, resolve_device

NUM_IMAGES = 256
LARGER = 8 / 7
"""Files are larger than the views, 256 pixels for 224, as photos are."""

Views = Callable[[torch.Tensor], object]
"""Makes two views of the images with these ids."""

HOW = (
    "For each size the contestants took turns; the spread is over rounds. An image counts once for its two "
    "views. Folder: JPEG files; this project has decoded them before, but for those on demand."
)


@dataclass(frozen=True)
class Shown:
    """The images of one size.

    Attributes:
        number: how many there are.
        size: side of the views.
        batch: images by id: uint8, as this project keeps them.
        tensors: the same for other libraries; from a folder they are decoded now.
        picture: one image for PIL, by id; from a folder it is decoded now.
        on_demand: `batch` of a folder whose pixels are not kept: files are decoded now.
    """

    number: int
    size: int
    batch: Callable[[torch.Tensor], torch.Tensor]
    tensors: Callable[[torch.Tensor], torch.Tensor]
    picture: Callable[[int], Any]
    on_demand: Callable[[torch.Tensor], torch.Tensor] | None = None


def in_memory(number: int, size: int, device: torch.device) -> Shown:
    """Returns images that are decoded."""
    images_NCHW = images_uint8(number, size).to(device)

    def batch(ids: torch.Tensor) -> torch.Tensor:
        return images_NCHW[ids.to(device)]

    return Shown(number, size, batch, batch, pictures(number, size).__getitem__)


def in_folder(root: Path, number: int, size: int, device: torch.device) -> Shown:
    """Returns images of which there are files."""
    from PIL import Image
    from torchvision.transforms.functional import pil_to_tensor

    paths = write_folder(root, number, round(LARGER * size))
    options = {"root": str(root), "image_size": size}
    kept = build_dataset("image_folder", options).train
    files = build_dataset("image_folder", {**options, "cache_dir": "off"}).train

    def batch(source: ImageSource, ids: torch.Tensor) -> torch.Tensor:
        found_BCHW = source.images(ids)
        if device.type == "cuda":
            found_BCHW = found_BCHW.pin_memory()
        return found_BCHW.to(device, non_blocking=True)

    def picture(row: int) -> Any:
        with Image.open(paths[row]) as opened:
            return opened.convert("RGB")

    def tensors(ids: torch.Tensor) -> torch.Tensor:
        return torch.stack([pil_to_tensor(picture(row)) for row in ids.tolist()]).to(device)

    return Shown(number, size, partial(batch, kept), tensors, picture, partial(batch, files))


def ours(shown: Shown, device: torch.device) -> Views:
    """Returns this project's way."""
    augmentation = build_augmentation("simclr", {}, shown.size, MEAN, STD)
    return lambda ids: augmentation(shown.batch(ids))


def ours_on_demand(shown: Shown, device: torch.device) -> Views:
    """Returns this project's way with a folder whose pixels are not kept."""
    if shown.on_demand is None:
        raise ImportError("these images are no files")
    return ours(dataclasses.replace(shown, batch=shown.on_demand), device)


def torchvisions(shown: Shown, device: torch.device) -> Views:
    """Returns torchvision's transforms, image by image."""
    transform = torchvision_view(shown.size)

    def views(ids: torch.Tensor) -> object:
        rows = [shown.picture(row) for row in ids.tolist()]
        return [torch.stack([transform(one) for one in rows]).to(device) for _ in "ab"]

    return views


def kornias(shown: Shown, device: torch.device) -> Views:
    """Returns kornia's augmentations, in batches; files are decoded image by image."""
    if kornia_stand_in.is_in_use():
        raise ImportError("kornia is not installed")
    import kornia.augmentation as K

    size = shown.size
    steps: list[torch.nn.Module] = [
        K.RandomResizedCrop((size, size), scale=(0.08, 1.0)),
        K.RandomHorizontalFlip(),
        K.ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8),
        K.RandomGrayscale(p=0.2),
    ]
    if size >= BLUR_FROM_PIXELS:
        width = size // 20 * 2 + 1
        steps.append(K.RandomGaussianBlur((width, width), (0.1, 2.0), p=0.5))
    transform = K.AugmentationSequential(
        *steps, K.Normalize(torch.tensor(MEAN), torch.tensor(STD)), data_keys=["input"]
    )

    def views(ids: torch.Tensor) -> object:
        images_BCHW = shown.tensors(ids).float() / 255
        return [transform(images_BCHW) for _ in "ab"]

    return views


def lightlys(shown: Shown, device: torch.device) -> Views:
    """Returns lightly's transform, image by image."""
    from lightly.transforms import SimCLRTransform

    blur = 0.5 if shown.size >= BLUR_FROM_PIXELS else 0.0
    transform = SimCLRTransform(input_size=shown.size, gaussian_blur=blur)

    def views(ids: torch.Tensor) -> object:
        pairs = [transform(shown.picture(row)) for row in ids.tolist()]
        return [torch.stack(list(view)).to(device) for view in zip(*pairs, strict=True)]

    return views


CONTESTANTS = {
    "dogo": ours,
    "dogo on demand": ours_on_demand,
    "torchvision": torchvisions,
    "kornia": kornias,
    "lightly": lightlys,
}


def measure(shown: Shown, batch_size: int, rounds: int, device: torch.device) -> Found[str, Took]:
    """Returns what an image takes each of them, by round."""
    made, failed = entered(
        {name: partial(make, shown, device) for name, make in CONTESTANTS.items()}
    )
    turns = {
        name: partial(_turn, views, shown.number, batch_size, device)
        for name, views in made.items()
    }
    found = take_turns(turns, rounds, warm_up=1)
    found.failed.update(failed)
    return found


def _turn(views: Views, number: int, batch_size: int, device: torch.device) -> Took:
    ids = torch.randint(number, (batch_size,))
    took = clocked(partial(views, ids), 1, partial(finish, device))
    return Took(took.cpu_s / batch_size, took.wall_s / batch_size)


def rows_of(images: str, shown: Shown, found: dict[str, list[Took]]) -> list[dict[str, Any]]:
    """Returns the figures of images of one size from one place."""
    return [
        {
            "image_size": shown.size,
            "images": images,
            "library": name,
            "images_per_cpu_s": spread([1 / one.cpu_s for one in rounds]),
            "images_per_wall_s": spread([1 / one.wall_s for one in rounds]),
        }
        for name, rounds in found.items()
    ]


def told_rows(rows: Sequence[dict[str, Any]]) -> None:
    """Prints figures."""
    for row in rows:
        print(
            f"{row['image_size']:>4} px, {row['images']:<6} {row['library']:<14} images a CPU second "
            f"{told(row['images_per_cpu_s']):<28} a wall second {told(row['images_per_wall_s'])}",
            flush=True,
        )


def main() -> None:
    """Measures every size, prints tables and writes the figures."""
    assert __doc__ is not None, "this module has a docstring"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--image-sizes", type=int, nargs="*", default=[32, 224])
    parser.add_argument("--folder-sizes", type=int, nargs="*", default=[224])
    parser.add_argument("--folder-images", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    asked = parser.parse_args()
    fix_numerics(asked.threads)
    torch.use_deterministic_algorithms(False)  # kornia and others have kernels that are not
    device = resolve_device(asked.device)
    with Result("data_path", HOW, parser, asked) as result:
        result.settings["device"] = device.type
        result.found["rows"] = []

        def add(images: str, shown: Shown) -> None:
            found = measure(shown, asked.batch_size, asked.rounds, device)
            for name, why in found.failed.items():
                result.failed[f"{shown.size} px, {images}, {name}"] = why
            rows = rows_of(images, shown, found.rounds())
            result.found["rows"] += rows
            told_rows(rows)

        for size in asked.image_sizes:
            with result.going_on(f"{size} px, memory"):
                add("memory", in_memory(NUM_IMAGES, size, device))
        for size in asked.folder_sizes:
            with (
                result.going_on(f"{size} px, folder"),
                tempfile.TemporaryDirectory(prefix="data-path-") as folder,
            ):
                add("folder", in_folder(Path(folder), asked.folder_images, size, device))


if __name__ == "__main__":
    main()
