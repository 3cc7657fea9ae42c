"""CIFAR-10, CIFAR-100 and STL-10 through torchvision, and FashionMNIST from its four idx files.

Nothing is downloaded unless the option `download` says so. torchvision checks the checksums that it
knows.
"""

# N = images, C = channels, H, W = pixels

from __future__ import annotations

import gzip
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torchvision import datasets as torchvision_datasets

from dogo_fed.data.map_style import UInt8Array, dataset_from_arrays
from dogo_fed.data.source import DataSet
from dogo_fed.errors import DataError

FASHION_PADDING = 2
"""Black pixels added to each side of FashionMNIST's 28 x 28 images."""
FASHION_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
IDX_UINT8 = 8
"""Third byte of an idx file of unsigned bytes."""


def cifar10(root: str = "data", download: bool = False) -> DataSet:
    """Returns CIFAR-10: 50,000 and 10,000 images of 32 x 32, 10 classes.

    Args:
        root: folder that has, or gets, `cifar-10-batches-py`.
        download: fetch the files if they are missing.

    Raises:
        DataError: the files are missing or damaged, or can't be downloaded.
    """
    return _cifar("cifar10", torchvision_datasets.CIFAR10, root, download)


def cifar100(root: str = "data", download: bool = False) -> DataSet:
    """Returns CIFAR-100: 50,000 and 10,000 images of 32 x 32, 100 classes.

    Args:
        root: folder that has, or gets, `cifar-100-python`.
        download: fetch the files if they are missing.

    Raises:
        DataError: the files are missing or damaged, or can't be downloaded.
    """
    return _cifar("cifar100", torchvision_datasets.CIFAR100, root, download)


def stl10(root: str = "data", download: bool = False, unlabeled: bool = False) -> DataSet:
    """Returns STL-10: 5,000 and 8,000 images of 96 x 96, 10 classes.

    Args:
        root: folder that has, or gets, `stl10_binary`.
        download: fetch the files (2.6 GB) if they are missing.
        unlabeled: add the 100,000 unlabeled images to the training images. They come after the
            labeled ones and have the label -1, so an evaluation must leave labels below 0 out.

    Raises:
        DataError: the files are missing or damaged, or can't be downloaded.
    """
    source = torchvision_datasets.STL10
    looked_for = Path(root) / source.base_folder

    def load(split: str) -> Any:
        return _with_download(
            "stl10", looked_for, download, lambda fetch: source(root, split=split, download=fetch)
        )

    train, test = load("train+unlabeled" if unlabeled else "train"), load("test")
    names = getattr(
        train, "classes", ()
    )  # torchvision has them if the file with the names is there
    return dataset_from_arrays(
        "stl10", train.data, train.labels, test.data, test.labels, class_names=names
    )


def fashion_mnist(root: str = "data", download: bool = False) -> DataSet:
    """Returns FashionMNIST: 60,000 and 10,000 images, padded to 32 x 32 RGB, 10 classes.

    Args:
        root: folder that has, or gets, `FashionMNIST/raw` with the four idx files, or that has the
            files itself; gzipped or not.
        download: fetch the files if they are missing.

    Raises:
        DataError: the files are missing or damaged, or can't be downloaded.
    """

    def load(fetch: bool) -> list[UInt8Array]:
        if fetch:
            torchvision_datasets.FashionMNIST(root, download=True)
        return [read_idx(_find_idx(Path(root), name)) for name in FASHION_FILES]

    looked_for = Path(root) / "FashionMNIST" / "raw"
    train_NHW, train_N, test_NHW, test_N = _with_download(
        "fashion_mnist", looked_for, download, load
    )
    return dataset_from_arrays(
        "fashion_mnist",
        _pad_and_repeat(train_NHW),
        train_N,
        _pad_and_repeat(test_NHW),
        test_N,
        class_names=torchvision_datasets.FashionMNIST.classes,
    )


def read_idx(path: Path) -> UInt8Array:
    """Returns the array of an idx file of unsigned bytes, gzipped or not.

    Raises:
        DataError: it is not such a file, or its length is not what its header says.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise DataError(f"{path} can't be read: {error}") from error
    num_axes = content[3] if content[:3] == bytes([0, 0, IDX_UINT8]) and len(content) > 3 else 0
    header = 4 + 4 * num_axes
    shape = tuple(int(side) for side in np.frombuffer(content[4:header], dtype=">u4"))
    if len(shape) != num_axes or num_axes == 0 or len(content) - header != math.prod(shape):
        raise DataError(f"{path} is not an idx file of unsigned bytes, or it is cut short")
    return np.frombuffer(bytearray(content[header:]), dtype=np.uint8).reshape(shape)


def _cifar(name: str, source: type[Any], root: str, download: bool) -> DataSet:
    """Returns CIFAR-10 or CIFAR-100 as torchvision reads it."""
    looked_for = Path(root) / source.base_folder

    def load(is_train: bool) -> Any:
        return _with_download(
            name, looked_for, download, lambda fetch: source(root, train=is_train, download=fetch)
        )

    def pixels(found: Any) -> UInt8Array:
        return np.ascontiguousarray(found.data.transpose(0, 3, 1, 2))

    train, test = load(is_train=True), load(is_train=False)
    return dataset_from_arrays(
        name,
        pixels(train),
        np.asarray(train.targets),
        pixels(test),
        np.asarray(test.targets),
        class_names=train.classes,
    )


def _with_download(name: str, looked_for: Path, download: bool, load: Callable[[bool], Any]) -> Any:
    """Returns load(False), or, if files are missing and it is allowed, load(True), which downloads.

    Raises:
        DataError: neither worked; names the folder, the cause and the option.
    """
    with warnings.catch_warnings():
        # The published CIFAR files hold dtypes as numpy once wrote them; numpy 2.4 warns of it.
        warnings.filterwarnings("ignore", message=r"dtype\(\): align should be passed")
        try:
            return load(False)
        except (RuntimeError, OSError) as missing:
            if not download:
                raise DataError(
                    f"{name} was not found in {looked_for} ({_one_line(missing)}); put its files "
                    "there, set data.options.root to where they are, or set "
                    "data.options.download=true"
                ) from missing
        try:
            return load(True)
        except (RuntimeError, OSError) as failed:
            raise DataError(
                f"{name} was not found in {looked_for} and its download failed "
                f"({type(failed).__name__}: {_one_line(failed)}); put its files there by hand or "
                "set data.options.root to where they are"
            ) from failed


def _one_line(error: BaseException) -> str:
    """Returns the first sentence of an error's message, without its full stop."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return first.split(". ")[0].rstrip(".:")


def _find_idx(root: Path, name: str) -> Path:
    """Returns the path of an idx file below `root`.

    Raises:
        FileNotFoundError: it is in none of the places.
    """
    for folder in (root / "FashionMNIST" / "raw", root):
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise FileNotFoundError(f"no {name} or {name}.gz there or in {root}")


def _pad_and_repeat(images_NHW: UInt8Array) -> torch.Tensor:
    """Returns grey images with a black border and three equal channels, N x 3 x H x W."""
    padded_NHW = F.pad(torch.from_numpy(images_NHW), (FASHION_PADDING,) * 4)
    return padded_NHW.unsqueeze(1).repeat(1, 3, 1, 1)
