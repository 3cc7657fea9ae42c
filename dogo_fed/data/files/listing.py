"""Which image files are in a folder, and what in it is left out, and why."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import torch
from PIL import Image

from dogo_fed.data.files import dicom
from dogo_fed.text import one_line, some_of

NO_PICTURES = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")
"""Formats that Pillow knows by name but can't read by itself, or that hold no pixels."""
NO_CLASSES = (
    "__MACOSX", "@eaDir", "@Recycle", "#recycle", "$RECYCLE.BIN", "System Volume Information",
    "lost+found",
)  # fmt: skip
"""Folders that an archive, a storage device or a system leaves beside the images."""
CACHE_FOLDER = ".dogo_fed_cache"
"""Where decoded pixels are kept, in the folder of the images."""
NEEDS = {
    ".heic": "needs pip install 'dogo-fed[heif]'",
    ".heif": "needs pip install 'dogo-fed[heif]'",
    ".dcm": "needs pip install 'dogo-fed[dicom]'",
    ".tar": "read by data=webdataset",
    ".npz": "read by data=npz",
    ".arrow": "read by data=hf_dataset",
    ".parquet": "read by data=hf_dataset, once saved by save_to_disk",
    ".npy": "save it as .npz, read by data=npz",
    ".h5": "save it as .npz, read by data=npz",
    ".hdf5": "save it as .npz, read by data=npz",
    ".nii": "save its slices as images",
    ".mp4": "save its frames as images",
    ".zip": "unpack it first",
    ".tgz": "unpack it first",
    ".7z": "unpack it first",
    ".rar": "unpack it first",
}
"""What reads files that Pillow alone does not, or what to do with them."""
BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*")
"""How files of pictures begin that may have lost their ending; WebP begins with RIFF."""
_MOST_OPENED = 16
"""Files of one ending that are opened one after the other to see whether they begin like DICOM."""
_NUMBER = "a number"
"""Stands for the ending of every file whose name is a number with dots."""
_MOST_REASONS = 12


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One image on disk: where it is, its class, and what changes when it changes.

    Attributes:
        label: -1 if it has no class.
    """

    path: Path
    label: int
    num_bytes: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class Broken:
    """An image that can't be read, and why."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{one_line(self.path)}: {self.reason}"


Listing: TypeAlias = list[ImageFile]


def labels_of(files: Listing) -> torch.Tensor:
    """Returns the classes of files: int64, shape N."""
    return torch.tensor([file.label for file in files], dtype=torch.int64)


@dataclass(slots=True)
class Found:
    """What is below a folder.

    Attributes:
        files: images, in the order of their paths below the folder.
        broken: links to nothing, and files that can't be looked at.
        left_out: reason to the number of files or folders.
    """

    files: Listing = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Splits:
    """The image files of a data set, below one folder.

    Attributes:
        root: folder that all files are in; where they lie below it is part of the cache's name.
        train, test: in the order of the sample ids; test may be empty.
        num_classes: labels are below it; 0 if no image has one.
        class_names: in the order of the labels; empty if they have no names.
        broken: images that can't be looked at.
        notes: what a user should know about how the folder was read, a sentence each.
    """

    root: Path
    train: Listing
    test: Listing
    num_classes: int
    class_names: tuple[str, ...] = ()
    broken: tuple[Broken, ...] = ()
    notes: tuple[str, ...] = ()


@functools.cache
def suffixes() -> frozenset[str]:
    """Returns the endings, in lower case, of the formats that Pillow reads here."""
    with contextlib.suppress(ImportError):
        pillow_heif = importlib.import_module("pillow_heif")
        pillow_heif.register_heif_opener()
    found = {
        ending
        for ending, kind in Image.registered_extensions().items()
        if kind in Image.OPEN and kind not in NO_PICTURES
    }
    return frozenset(found | {dicom.SUFFIX} if dicom.has_pydicom() else found)


def class_folders(folder: Path) -> list[str]:
    """Returns the names of the folders in a folder in alphabetical order, hidden ones left out."""
    with os.scandir(folder) as entries:
        return sorted(
            entry.name for entry in entries if _is_folder(entry) and not is_hidden(entry.name)
        )


def images_in(folder: Path, label: int) -> Found:
    """Returns the images directly in a folder, all of one class."""
    return _look(folder, label, inside=False)


def images_below(folder: Path, label: int) -> Found:
    """Returns the images in a folder and in its folders, all of one class; links are followed."""
    return _look(folder, label, inside=True)


def has_images(folder: Path) -> bool:
    """Whether there is an image in a folder or in its folders."""
    return any(_walk(folder, True, _Sorting(Counter()), {_identity(folder)}))


def used(path: Path, folder: Path, left_out: Counter[str]) -> None:
    """Takes a file that is used from the count of what was left out below a folder."""
    reason = f"no image: {_ending(path.name)}"
    if left_out[reason] and path.resolve().is_relative_to(folder.resolve()):
        left_out[reason] -= 1
    left_out += Counter()  # drops what is counted no more


def counted(left_out: Counter[str]) -> str:
    """Returns the reasons why something was left out, with their numbers."""
    reasons = [f"{reason} ({number})" for reason, number in sorted(left_out.items())]
    return some_of(reasons, _MOST_REASONS)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is left out, since no person put it there."""
    return name.startswith(".") or name in NO_CLASSES


def image_at(path: Path, label: int) -> ImageFile:
    """Returns what is remembered of the image at a path.

    Raises:
        OSError: there is none.
    """
    return _image_file(path, label, path.stat())


def _look(folder: Path, label: int, *, inside: bool) -> Found:
    found = Found()
    sorting = _Sorting(found.left_out, found.broken)
    for entry in _walk(folder, inside, sorting, {_identity(folder)}):
        try:
            found.files.append(_image_file(Path(entry.path), label, entry.stat()))
        except OSError as error:
            kind = "a link to nothing" if entry.is_symlink() else "can't be looked at"
            found.broken.append(Broken(Path(entry.path), f"{kind} ({error.strerror})"))
    found.files.sort(key=lambda file: file.path.relative_to(folder).parts)
    return found


@dataclass(slots=True)
class _Sorting:
    """What is an image and what is not, of the files below one folder.

    Attributes:
        left_out: counts what is passed over, by reason.
        broken: gets the folders that nobody may look into.
        unlike: ending to how many files that have it were opened in vain, one after the other.
    """

    left_out: Counter[str]
    broken: list[Broken] = field(default_factory=list)
    unlike: Counter[str] = field(default_factory=Counter)

    def is_image(self, entry: os.DirEntry[str]) -> bool:
        """Whether a file looks like an image; counts it if not."""
        ending = os.path.splitext(entry.name)[1].lower()
        if ending in suffixes() or (not ending and _begins_like_picture(entry)):
            return True
        reason = _ending(entry.name)
        if ending not in NEEDS and self._begins_like_dicom(entry, ending):
            if dicom.has_pydicom():
                return True
            reason = f"DICOM, {NEEDS[dicom.SUFFIX]}"
        self.left_out[f"no image: {reason}"] += 1
        return False

    def _begins_like_dicom(self, entry: os.DirEntry[str], ending: str) -> bool:
        """Looks into a file, but not into each of many that have the same ending in vain."""
        kind = _NUMBER if ending[1:].isdigit() else ending
        if (ending and self.unlike[kind] >= _MOST_OPENED) or not _is_file(entry):
            return False
        is_dicom = dicom.is_dicom(Path(entry.path))
        self.unlike[kind] = 0 if is_dicom else self.unlike[kind] + 1
        return is_dicom


def _walk(
    folder: Path, inside: bool, sorting: _Sorting, above: set[tuple[int, int]]
) -> Iterator[os.DirEntry[str]]:
    """Yields the entries that look like images.

    Args:
        folder: where to look.
        inside: whether to look into its folders too.
        sorting: tells them from the others, which it counts.
        above: the folders on the way here; a link back to one of them is not followed.
    """
    try:
        with os.scandir(folder) as entries:
            there = sorted(entries, key=lambda one: one.name)
    except OSError as error:
        reason = f"a folder that can't be looked into ({error.strerror})"
        sorting.broken.append(Broken(folder, reason))
        return
    for entry in there:
        if entry.name == CACHE_FOLDER:
            continue
        if is_hidden(entry.name):
            sorting.left_out["hidden"] += 1
        elif _is_folder(entry):
            if not inside:
                continue
            identity = _identity(Path(entry.path))
            if identity in above:
                sorting.left_out["links to a folder above"] += 1
            else:
                yield from _walk(Path(entry.path), inside, sorting, above | {identity})
        elif sorting.is_image(entry):
            yield entry


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _begins_like_picture(entry: os.DirEntry[str]) -> bool:
    """Looks into a file without an ending."""
    try:
        if not entry.is_file():
            return False
        with open(entry.path, "rb") as file:
            head = file.read(12)
    except OSError:
        return False
    return head.startswith(BEGINNINGS) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


def _ending(name: str) -> str:
    """Returns what a file is counted under: its ending, or its name if it has none."""
    ending = os.path.splitext(name)[1].lower()
    needs = f", {NEEDS[ending]}" if ending in NEEDS else ""
    return one_line(ending or name, 40) + needs


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _image_file(path: Path, label: int, status: os.stat_result) -> ImageFile:
    return ImageFile(path, label, status.st_size, status.st_mtime_ns)
