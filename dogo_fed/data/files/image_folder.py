"""Any folder of images: with or without class folders, a test part, or labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dogo_fed.components import close_matches
from dogo_fed.data.files.image_files import (
    check_image_size,
    dataset_from_files,
    left_out_note,
    side_to_store,
)
from dogo_fed.data.files.label_table import read_label_table
from dogo_fed.data.files.listing import (
    Broken,
    Found,
    Listing,
    Splits,
    class_folders,
    counted,
    has_images,
    images_below,
    images_in,
    suffixes,
    used,
)
from dogo_fed.data.files.parts import (
    TEST_NAMES,
    TRAIN_NAMES,
    not_used_note,
    pictures_beside_masks,
    words_of,
)
from dogo_fed.data.files.pixel_options import PixelOptions, with_pixel_options
from dogo_fed.data.source import NO_LABEL, DataSet
from dogo_fed.errors import ConfigError, DataError
from dogo_fed.text import one_line, some_of

FOLDERS, NONE = "folders", "none"
_FILES = {
    ".tar": "tar shards are read by data=webdataset data.options.root={}",
    ".npz": "arrays are read by data=npz data.options.path={}",
    **dict.fromkeys(
        (".zip", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"),
        "unpack it, and name the folder that it becomes: data=<folder>",
    ),
    **dict.fromkeys(
        (".csv", ".tsv", ".txt"),
        "name the folder of the images: data=<folder>. A table of their classes is "
        "data.options.labels={}",
    ),
}
"""What to type for a file that is no folder of images."""
_MOST_NAMES = 6
_MOST_WRAPPERS = 8
"""Folders in folders that are looked into for train/, one in the other."""
_LONGEST_TITLE = 80


@with_pixel_options
def image_folder(
    root: str,
    image_size: int = 64,
    labels: str = FOLDERS,
    stored_size: int | None = None,
    cache_dir: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    *,
    pixels: PixelOptions,
) -> DataSet:
    """Returns the images of a folder.

    The training images are those below train/, and the test images those below test/ (or val/). If
    there is no train/, all images are training images. The folders in it are the classes, and
    images at any depth below one are of it. Images beside them, and all images where there are no
    folders, have no class. If all images are in one folder, which has train/ or test/, it is that
    folder's that are read.

    Args:
        root: the folder.
        image_size: side of the views in pixels.
        labels: `folders`, `none`, or a table (.csv or .tsv) whose lines have the path of an image,
            relative to root, and its class; see `read_label_table`.
        stored_size: side of the stored images, from which crops are taken. None stores what the
            images have, up to twice image_size.
        cache_dir: where decoded pixels are kept; None is `.dogo_fed_cache` in root. If it can't be
            written to, nothing is kept, and every process decodes the images anew.
        image_column: heading of the table's column with the images; None finds it.
        label_column: heading of the table's column with the classes; None finds it.
        pixels: options of their own, see `PixelOptions`.

    Raises:
        ConfigError: an option is impossible.
        DataError: there are no images, the layout is not as expected, or an image can't be read.
    """
    check_image_size("image_folder", image_size)
    splits = find_images(Path(root), labels, image_column, label_column)
    side, splits = side_to_store(stored_size, image_size, splits)
    how = pixels.decoding(side)
    return dataset_from_files(
        "image_folder", splits, image_size, cache_dir, how=how, title=_title(Path(root))
    )


def _title(root: Path) -> str:
    """Returns a folder's own name, as it can be printed and be a part of a file's name."""
    return one_line(root.resolve().name, _LONGEST_TITLE)


def find_images(
    root: Path,
    labels: str = FOLDERS,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Splits:
    """Returns the images of a folder, and how it was read; see `image_folder`.

    Raises:
        DataError: there are none, or the layout is not as expected.
    """
    by_folder = labels == FOLDERS
    if labels in (FOLDERS, NONE) and (image_column is not None or label_column is not None):
        raise ConfigError(
            "image_column and label_column are columns of a table; name it by data.options.labels=<table>"
        )
    train_folder, test_folder, notes = _find_parts(root, by_folder)
    train = _read_part(train_folder, by_folder)
    test = _read_part(test_folder, by_folder) if test_folder is not None else _Part()
    if not train.num_images:
        raise DataError(_nothing_there(root, train_folder, train))
    if test_folder is not None and not test.num_images:
        notes.append(f"{test_folder.name}/ has no images")
    classes = _classes(train, test, test_folder)
    if classes and train_folder == root:
        notes.append(
            f"no train/ in {train.place}: its folders {_some(classes)} are taken as classes "
            f"(data.options.labels=none if they are none{_within(train.place, classes)})"
        )
    listings = [_labelled(part, classes) for part in (train, test)]
    if labels not in (FOLDERS, NONE):
        table = read_label_table(
            root,
            labels,
            [*listings[0], *listings[1]],
            image_column=image_column,
            label_column=label_column,
        )
        classes = table.classes
        notes += table.notes
        for part, place in ((train, train_folder), (test, test_folder)):
            if place is not None:
                used(table.path, place, part.left_out)
        listings = [
            [replace(file, label=table.labels.get(file.path, NO_LABEL)) for file in files]
            for files in listings
        ]
    notes += left_out_note(train.left_out + test.left_out)
    return Splits(
        root=root,
        train=listings[0],
        test=listings[1],
        num_classes=len(classes),
        class_names=tuple(classes),
        broken=(*train.broken, *test.broken),
        notes=tuple(notes),
    )


def list_classes(folder: Path, classes: Sequence[str]) -> Found:
    """Returns what is in a folder of class folders, its images by class and then by name.

    Raises:
        DataError: there is a class folder too many, or no image.
    """
    part = _read_part(folder, by_folder=True)
    _check_strangers(folder, part, classes, "remove its folder, or add training images of it")
    if not part.num_images:
        raise DataError(f"{folder} has no images; expected are class folders with images")
    return Found(_labelled(part, classes), part.broken, part.left_out)


@dataclass(slots=True)
class _Part:
    """The images of the training or the test part, by the class folder that they are below.

    Attributes:
        place: the folder that has the class folders.
    """

    place: Path = Path()
    classes: dict[str, Listing] = field(default_factory=dict)
    unlabelled: Listing = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def num_images(self) -> int:
        """Images that were found, whether or not they can be read."""
        known = sum(map(len, self.classes.values())) + len(self.unlabelled)
        return known + len(self.broken)

    def note(self, found: Found) -> Listing:
        """Takes what is not an image; returns the images."""
        self.broken += found.broken
        self.left_out += found.left_out
        return found.files


def _find_parts(root: Path, by_folder: bool) -> tuple[Path, Path | None, list[str]]:
    """Returns the training folder, the test folder if there is one, and notes.

    Raises:
        DataError: there is no such folder, or test images without training images, or it can't be
            told which of several folders is meant.
    """
    if not root.is_dir():
        raise DataError(_no_folder(root))
    folder, notes = _unwrapped(root, by_folder)
    folders = class_folders(folder)
    train, test = _parts_among(folder, folders)
    if train is None:
        if test is not None and by_folder:
            raise DataError(
                f"{folder} has {test}/ but no train/; found {_some(folders)}. Name the folder of the "
                "training images train, or set data.options.root to it, or data.options.labels=none to "
                "train with all images"
            )
        if test is not None:
            notes.append(f"{test}/ in {folder} is trained with too, since there is no train/")
        return root, None, notes
    for part, name, names in (("training", train, TRAIN_NAMES), ("test", test, TEST_NAMES)):
        if name is not None and name.lower() not in names:
            notes.append(f"{one_line(name)}/ is taken as the {part} part of {folder}")
    others = [name for name in folders if name not in (train, test)]
    unused = [f"{name}/" for name in others]
    beside = len(images_in(folder, NO_LABEL).files)
    if beside:
        unused.insert(0, f"{beside} image{'s' * (beside > 1)}")
    notes += not_used_note(unused, folder)
    if test is None and by_folder and any(has_images(folder / name) for name in others):
        notes.append(
            f"if {train} is one of several classes, move all of them into one folder: "
            f"{train}/{one_line(others[0], 60)}, ..., {train}/{train}"
        )
    return _inmost(folder / train), None if test is None else _inmost(folder / test), notes


def _unwrapped(root: Path, by_folder: bool) -> tuple[Path, list[str]]:
    """Returns the folder that has train/ or test/, and notes; the root itself if none has.

    An archive often has all of a data set in one folder. Its test images are no images of a class.

    Raises:
        DataError: it can't be told which of several folders is meant.
    """
    folder, unused = root, list[str]()
    for _ in range(_MOST_WRAPPERS):
        names = class_folders(folder)
        if any(_parts_among(folder, names)):
            read = f"{root} has its images in {folder.relative_to(root)}/, which is read"
            return folder, [] if folder == root else [read, *not_used_note(unused, root)]
        pictures = pictures_beside_masks(names)
        if pictures is not None and _is_divided(folder / pictures):
            unused = [f"{name}/" for name in names if name != pictures]
            folder /= pictures
            continue
        divided = [name for name in names if _is_divided(folder / name)]
        if divided:  # labels/ of some archives has train/ and test/ too, with texts in them
            names = [name for name in names if has_images(folder / name)]
            divided = [name for name in divided if name in names]
        if divided and len(names) > 1:
            return root, _taken_together(folder, divided, by_folder)
        if len(names) != 1 or images_in(folder, NO_LABEL).files:
            break
        folder /= names[0]
    return root, []


def _is_divided(folder: Path) -> bool:
    """Whether a folder has a part to train with and one to test with."""
    try:
        return all(_parts_among(folder, class_folders(folder)))
    except OSError:  # nobody may look into it, which is told when its images are read
        return False


def _taken_together(folder: Path, divided: Sequence[str], by_folder: bool) -> list[str]:
    """Returns the note that the test images of several folders are trained with.

    Raises:
        DataError: nobody has said that no folder is a class.
    """
    found = f"{folder} has no train/, but there is one beside test images in {_some(divided)}"
    if by_folder:
        raise DataError(
            f"{found}. Set data.options.root to one of them ({folder / divided[0]}), or "
            "data.options.labels=none to train with all images, those to test with too"
        )
    return [f"{found}: all images are training images"]


def _inmost(part: Path) -> Path:
    """Returns the folder of a part, which some archives have twice: train/train/."""
    for _ in range(_MOST_WRAPPERS):
        names = class_folders(part)
        if [name.lower() for name in names] != [part.name.lower()] or images_in(
            part, NO_LABEL
        ).files:
            break
        part /= names[0]
    return part


def _parts_among(folder: Path, names: Sequence[str]) -> tuple[str | None, str | None]:
    """Returns which folder has the training images and which the test images, if any has.

    They are called like that, or each has such a word in its name. If neither is called exactly so,
    the rest of both names has to be the same (train_images and test_images, train2017 and val2017).

    Raises:
        DataError: it can't be told which of several folders is meant.
    """
    train, test = _first(names, TRAIN_NAMES), _first(names, TEST_NAMES)
    trains, tests = _with_word(folder, names, TRAIN_NAMES), _with_word(folder, names, TEST_NAMES)
    if train is None and test is None:
        both = {_rest(name) for name in trains} & {_rest(name) for name in tests}
        trains = [name for name in trains if _rest(name) in both]
        tests = [name for name in tests if _rest(name) in both]
    if train is None and (test is not None or tests):
        train = _only_one(folder, trains, "train")
    if test is None and train is not None:
        there = {word for name in tests for word in words_of(name)}
        word = next((one for one in TEST_NAMES if one in there), None)
        others = [name for name in tests if word in words_of(name) and name != train]
        test = _only_one(folder, others, "test")
    return train, test


def _with_word(folder: Path, names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Returns the folders with images that have one of these words in their names."""
    return [name for name in names if words_of(name) & set(wanted) and has_images(folder / name)]


def _rest(name: str) -> frozenset[str]:
    """Returns the words of a part's name that do not say which part it is."""
    return frozenset(words_of(name) - {*TRAIN_NAMES, *TEST_NAMES})


def _only_one(folder: Path, names: Sequence[str], part: str) -> str | None:
    if len(names) > 1:
        raise DataError(
            f"{folder} has several folders that may be its {part} images: {_some(names)}; name the one "
            f"that is {part}"
        )
    return names[0] if names else None


def _first(folders: Iterable[str], wanted: Sequence[str]) -> str | None:
    """Returns the folder that has the first of the wanted names, in any case."""
    there = sorted(folders, key=str.islower, reverse=True)  # train before Train
    found = (name for want in wanted for name in there if name.lower() == want)
    return next(found, None)


def _read_part(folder: Path, by_folder: bool) -> _Part:
    """Returns the images below a folder."""
    names = class_folders(folder)
    pictures = pictures_beside_masks(names)
    if pictures is not None:
        part = _read_part(folder / pictures, by_folder)
        part.unlabelled += part.note(images_in(folder, NO_LABEL))
        for name in [one for one in names if one != pictures]:
            number = len(images_below(folder / name, NO_LABEL).files)
            part.left_out[f"images in {one_line(name, 60)}/ beside {pictures}/"] += number
        part.left_out += Counter()  # drops folders without images
        return part
    part = _Part(folder)
    if not by_folder:
        part.unlabelled = part.note(images_below(folder, NO_LABEL))
        return part
    for name in names:
        files = part.note(images_below(folder / name, NO_LABEL))
        if files:
            part.classes[name] = files
        else:
            part.left_out["folders without images"] += 1
    part.unlabelled = part.note(images_in(folder, NO_LABEL))
    return part


def _classes(train: _Part, test: _Part, test_folder: Path | None) -> list[str]:
    """Returns the names of the classes.

    Raises:
        DataError: the test images have a class that the training images have not.
    """
    if not train.classes:
        return sorted(test.classes)
    if test_folder is not None:
        ways_out = (
            "add training images of it, remove its folder, or type data.options.labels=none if these "
            "folders are no classes"
        )
        _check_strangers(test_folder, test, list(train.classes), ways_out)
    return sorted(train.classes)


def _check_strangers(folder: Path, part: _Part, classes: Sequence[str], ways_out: str) -> None:
    strangers = sorted(set(part.classes) - set(classes))
    if strangers:
        raise DataError(
            f"{folder} has the class {strangers[0]!r}, which the training images have not (they have "
            f"{_some(classes)}); {ways_out}"
        )


def _labelled(part: _Part, classes: Sequence[str]) -> Listing:
    """Returns the images of a part in the order of their classes, those without a class last."""
    files = [
        replace(file, label=label)
        for label, name in enumerate(classes)
        for file in part.classes.get(name, [])
    ]
    return files + part.unlabelled


def _within(root: Path, classes: Sequence[str]) -> str:
    """Returns how to take the folders in the only class for classes, if it has several."""
    inside = class_folders(root / classes[0]) if len(classes) == 1 else []
    return f"; data={root / classes[0]} if those in it are" if len(inside) > 1 else ""


def _no_folder(root: Path) -> str:
    if root.is_file():
        ending = root.suffix.lower()
        instead = _FILES.get(ending, "image_folder takes a folder (data.options.root)")
        if ending in suffixes():
            instead = f"image_folder takes a folder, such as data={root.parent}"
        return f"{root} is a file; {instead.format(root)}"
    above = next((parent for parent in root.parents if parent.is_dir()), Path("."))
    there = class_folders(above)
    return (
        f"there is no folder {one_line(root)}{close_matches(root.name, there)}; set "
        f"data.options.root (in {above}: {_some(there)})"
    )


def _nothing_there(root: Path, folder: Path, part: _Part) -> str:
    found = f"found there: {counted(part.left_out)}" if part.left_out else "it is empty"
    where = folder if folder == root else f"{folder}, the training part of {root},"
    return f"{where} has no images; {found}. Set data.options.root to a folder of images"


def _some(names: Sequence[str]) -> str:
    return some_of([one_line(name, 60) for name in names], _MOST_NAMES) or "no folders"
