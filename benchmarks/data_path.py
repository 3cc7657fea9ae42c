"""How fast two views of a batch are made: this project's, torchvision's, kornia's and lightly's.

    python -m benchmarks.data_path [--image-sizes 32 224] [--batch-size 128] [--rounds 5] [--threads 1]

All make SimCLR's views (crop, flip, colours, grey; blur from 224 pixels) of the same images in memory, as the
libraries' own examples do: torchvision and lightly image by image from PIL, kornia and this project in
batches. Contestants take turns. What counts is processor time; on a GPU, wall time.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import time
from collections.abc import Callable

import torch

from benchmarks.images import MEAN, STD, images_uint8, pictures, torchvision_view
from benchmarks.machine import write_result
from dogo_fed.data.augment import BLUR_FROM_PIXELS, build_augmentation
from dogo_fed.engine.numerics import fix_numerics, resolve_device

NUM_IMAGES = 256

Views = Callable[[torch.Tensor], object]
"""Makes two views of the images with these ids."""


def ours(image_size: int, device: torch.device) -> Views:
    """Returns this project's way."""
    images = images_uint8(NUM_IMAGES, image_size).to(device)
    augmentation = build_augmentation("simclr", {}, image_size, MEAN, STD)
    return lambda ids: augmentation(images[ids.to(device)])


def torchvisions(image_size: int, device: torch.device) -> Views:
    """Returns torchvision's transforms, image by image."""
    transform, shown = torchvision_view(image_size), pictures(NUM_IMAGES, image_size)

    def views(ids: torch.Tensor) -> object:
        return [
            torch.stack([transform(shown[row]) for row in ids.tolist()]).to(device) for _ in "ab"
        ]

    return views


def kornias(image_size: int, device: torch.device) -> Views:
    """Returns kornia's augmentations, in batches."""
    import kornia.augmentation as K

    steps: list[torch.nn.Module] = [
        K.RandomResizedCrop((image_size, image_size), scale=(0.08, 1.0)),
        K.RandomHorizontalFlip(),
        K.ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8),
        K.RandomGrayscale(p=0.2),
    ]
    if image_size >= BLUR_FROM_PIXELS:
        width = image_size // 20 * 2 + 1
        steps.append(K.RandomGaussianBlur((width, width), (0.1, 2.0), p=0.5))
    transform = K.AugmentationSequential(
        *steps, K.Normalize(torch.tensor(MEAN), torch.tensor(STD)), data_keys=["input"]
    )
    images = images_uint8(NUM_IMAGES, image_size).to(device)
    return lambda ids: [transform(images[ids.to(device)].float() / 255) for _ in "ab"]


def lightlys(image_size: int, device: torch.device) -> Views:
    """Returns lightly's transform, image by image."""
    from lightly.transforms import SimCLRTransform

    blur = 0.5 if image_size >= BLUR_FROM_PIXELS else 0.0
    transform = SimCLRTransform(input_size=image_size, gaussian_blur=blur)
    shown = pictures(NUM_IMAGES, image_size)

    def views(ids: torch.Tensor) -> object:
        pairs = [transform(shown[row]) for row in ids.tolist()]
        return [torch.stack(list(view)).to(device) for view in zip(*pairs, strict=True)]

    return views


CONTESTANTS = {"dogo": ours, "torchvision": torchvisions, "kornia": kornias, "lightly": lightlys}


def measure(
    image_size: int, batch_size: int, rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Returns images a second of each, by round; an image counts once for its two views."""
    entered = {}
    for name, make in CONTESTANTS.items():
        try:
            entered[name] = make(image_size, device)
        except ImportError as error:
            print(f"{name} is left out: {error}")
    speeds: dict[str, list[float]] = {name: [] for name in entered}
    for number in range(rounds + 1):
        for name, views in entered.items():
            ids = torch.randint(NUM_IMAGES, (batch_size,))
            seconds = _seconds_of(lambda views=views, ids=ids: views(ids), device)
            if number > 0:  # the first round warms up
                speeds[name].append(batch_size / seconds)
    return speeds


def _seconds_of(work: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        started_s = time.process_time()
        work()
        return time.process_time() - started_s
    torch.cuda.synchronize(device)
    started_s = time.perf_counter()
    work()
    torch.cuda.synchronize(device)
    return time.perf_counter() - started_s


def main() -> None:
    """Measures every size, prints a table and writes the figures."""
    assert __doc__ is not None, "this module has a docstring"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--image-sizes", type=int, nargs="+", default=[32, 224])
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    fix_numerics(arguments.threads)
    torch.use_deterministic_algorithms(False)  # kornia and others have kernels that are not
    device = resolve_device("auto")
    rows = []
    print(f"{'pixels':>6} {'':<12} {'images/s':>9} {'least':>8} {'most':>8}")
    for image_size in arguments.image_sizes:
        for name, speeds in measure(
            image_size, arguments.batch_size, arguments.rounds, device
        ).items():
            row = {
                "image_size": image_size,
                "library": name,
                "images_per_s": round(statistics.median(speeds), 1),
                "least": round(min(speeds), 1),
                "most": round(max(speeds), 1),
            }
            rows.append(row)
            print(
                f"{image_size:>6} {name:<12} {row['images_per_s']:>9} {row['least']:>8} "
                f"{row['most']:>8}",
                flush=True,
            )
    content = {
        "command": shlex.join(["python", "-m", "benchmarks.data_path", *sys.argv[1:]]),
        "rows": rows,
    }
    print(f"written to {write_result('data_path', content).name} in benchmarks/results/")


if __name__ == "__main__":
    main()
