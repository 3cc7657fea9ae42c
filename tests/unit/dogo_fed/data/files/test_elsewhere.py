"""Images that are no folder of pictures: arrays, shards, tables, DICOM; each from a small made file."""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from dogo_fed.data.datasets import build_dataset
from dogo_fed.errors import ConfigError, DataError
from tests.support.image_folders import all_images, draw, levels, load_folder


def grey(value, side=8):
    return Image.fromarray(np.full((side, side, 3), value, dtype=np.uint8))


def png(value, side=8):
    content = io.BytesIO()
    grey(value, side).save(content, "png")
    return content.getvalue()


# ---- npz ----


def write_npz(path: Path, **changes) -> Path:
    arrays = {
        "train_images": np.arange(6, dtype=np.uint8)[:, None, None].repeat(8, 1).repeat(8, 2),
        "train_labels": np.array([[0], [1], [2], [0], [1], [2]]),
        "val_images": np.full((1, 8, 8), 90, np.uint8),
        "val_labels": np.array([[0]]),
        "test_images": np.full((2, 8, 8), 100, np.uint8),
        "test_labels": np.array([[2], [1]]),
        **changes,
    }
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def load_npz(path: Path, **options):
    return build_dataset("npz", {"path": str(path), **options})


def test_npz_as_medmnist_has_it(tmp_path):
    data = load_npz(write_npz(tmp_path / "pathmnist.npz"))
    assert (data.name, data.num_classes, data.image_size) == ("pathmnist", 3, 8)
    assert levels(data.train) == [0, 1, 2, 3, 4, 5]
    assert data.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert (levels(data.test), data.test.labels.tolist()) == ([100, 100], [2, 1])
    assert all_images(data.train).shape == (6, 3, 8, 8)


def test_npz_in_colour_in_16_bits_grey_and_at_another_size(tmp_path):
    colours = np.zeros((2, 8, 8, 3), np.uint8)
    colours[..., 1] = 200
    data = load_npz(write_npz(tmp_path / "a.npz", train_images=colours, train_labels=[0, 1]))
    assert all_images(data.train).amax((0, 2, 3)).tolist() == [0, 200, 0]
    deep = np.full((2, 8, 8), 65535, np.uint16)
    path = write_npz(tmp_path / "b.npz", train_images=deep, train_labels=[0, 1])
    data = load_npz(path, channels=1, image_size=4)
    assert all_images(data.train).shape == (2, 1, 8, 8) and data.image_size == 4
    assert levels(data.train) == [255, 255]


def test_npz_without_labels_or_with_several_of_an_image(tmp_path):
    data = load_npz(write_npz(tmp_path / "a.npz", train_labels=None, test_images=None))
    assert set(data.train.labels.tolist()) == {-1} and levels(data.test) == [90]
    data = load_npz(write_npz(tmp_path / "b.npz", train_labels=np.zeros((6, 14), int)))
    assert set(data.train.labels.tolist()) == {-1}
    assert "train_labels (int64, of shape (6, 14)) are not one class for each" in data.notes[0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"train_images": None}, "has no array train_images; it has test_images, test_labels"),
        ({"train_images": np.zeros((2, 8, 8))}, "must be uint8 or uint16, .* not float64"),
        ({"train_images": np.zeros((2, 8), np.uint8)}, r"of shape \(2, 8\)"),
    ],
)
def test_npz_that_is_something_else(tmp_path, content, says):
    with pytest.raises(DataError, match=says):
        load_npz(write_npz(tmp_path / "a.npz", train_labels=None, **content))


def test_npz_in_colour_and_in_16_bits(tmp_path):
    deep = np.zeros((2, 8, 8, 3), np.uint16)
    deep[..., 0], deep[..., 1] = 65535, 32768
    path = write_npz(tmp_path / "a.npz", train_images=deep, train_labels=[0, 1])
    assert all_images(load_npz(path).train).amax((0, 2, 3)).tolist() == [255, 128, 0]
    shown = all_images(load_npz(path, value_range=[0, 32768]).train)
    assert shown.amax((0, 2, 3)).tolist() == [255, 255, 0]


def test_npz_in_12_bits_takes_the_range_that_is_stated(tmp_path):
    dark = np.full((2, 8, 8), 4095, np.uint16)
    path = write_npz(tmp_path / "a.npz", train_images=dark, train_labels=[0, 1])
    assert levels(load_npz(path).train) == [16, 16]
    assert levels(load_npz(path, value_range=[0, 4095]).train) == [255, 255]


def test_npz_whose_other_arrays_can_not_be_read_is_read_all_the_same(tmp_path):
    path = write_npz(tmp_path / "a.npz", class_names=np.array(["cat", None, "owl"], dtype=object))
    assert load_npz(path).train.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_npz_classes_may_be_written_with_a_point(tmp_path):
    path = write_npz(tmp_path / "a.npz", train_labels=np.array([0.0, 1, 2, 0, 1, 2]))
    data = load_npz(path)
    assert data.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    for odd in (0.5, np.inf, np.nan):
        data = load_npz(write_npz(tmp_path / "b.npz", train_labels=np.array([odd, 1, 2, 0, 1, 2])))
        assert set(data.train.labels.tolist()) == {-1} and "float64" in data.notes[0]


def test_npz_that_is_enlarged_to_the_views_says_so(tmp_path):
    path = write_npz(tmp_path / "a.npz")
    assert not [one for one in load_npz(path).notes if "are enlarged" in one]
    assert "typically 8 px wide" in " ".join(load_npz(path, image_size=16).notes)


def test_npz_parts_that_are_not_used_are_named(tmp_path):
    path = write_npz(tmp_path / "a.npz")
    assert f"not used: val_images in {path}" in load_npz(path).notes
    assert load_npz(write_npz(tmp_path / "b.npz", val_images=None)).notes == ()


def damaged(path: Path) -> bytes:
    """Returns a compressed .npz whose first array can't be unpacked."""
    np.savez_compressed(path, train_images=np.arange(4096, dtype=np.uint8).reshape(4, 32, 32))
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        name = archive.infolist()[0].filename
    start = 30 + len(name)
    content[start + 20 : start + 60] = b"\xff" * 40
    return bytes(content)


@pytest.mark.parametrize("kind", ["empty", "cut short", "damaged", "npy", "missing"])
def test_npz_that_is_broken_names_the_setting(tmp_path, kind):
    path = tmp_path / "a.npz"
    if kind == "npy":
        np.save(tmp_path / "a.npy", np.zeros((2, 8, 8), np.uint8))
        (tmp_path / "a.npy").rename(path)
    elif kind == "damaged":
        path.write_bytes(damaged(tmp_path / "whole.npz"))
    elif kind != "missing":
        whole = write_npz(tmp_path / "whole.npz").read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if kind == "cut short" else b"")
    with pytest.raises(DataError, match=r"a\.npz can't be read as \.npz: .+data\.options\.path"):
        load_npz(path)


def test_npz_without_training_images_names_the_setting(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 8, 8), np.uint8))
    with pytest.raises(DataError, match=r"it has images\. Set data\.options\.path"):
        load_npz(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", train_images=np.arange(3, dtype=np.uint8))
    with pytest.raises(DataError, match=r"must be uint8 or uint16, .* of shape \(3,\)"):
        load_npz(tmp_path / "b.npz")


def test_npz_runs_no_pickle(tmp_path):
    class Boom:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    np.savez(tmp_path / "a.npz", train_images=np.array([Boom()], dtype=object))
    with pytest.raises(DataError, match=r"can't be read as \.npz"):
        load_npz(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"can't be read as \.npz"):
        load_npz(tmp_path / "b.npz")
    assert not (tmp_path / "ran").exists()


# ---- webdataset ----


def write_shard(path: Path, samples) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in samples:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def load_shards(root: Path, **options):
    return build_dataset("webdataset", {"root": str(root), "image_size": 8, **options})


def test_where_there_are_no_shards_it_is_said_what_there_is(tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no \.tar shards in .* \(found there: \.jpg \(1\)\)"):
        load_shards(tmp_path)
    write_shard(tmp_path / "more/a.tar", [("1.png", png(1))])
    with pytest.raises(
        DataError, match=r"in folders of it: .*/more \(1\); set data\.options\.root"
    ):
        load_shards(tmp_path)
    with pytest.raises(DataError, match=r"there is no folder .*/nowhere"):
        load_shards(tmp_path / "nowhere")


def test_shards_in_the_order_of_their_names(tmp_path):
    write_shard(tmp_path / "b-train.tar", [("x/3.png", png(3)), ("x/3.cls", b"1")])
    write_shard(
        tmp_path / "a-train.tar",
        [
            ("1.png", png(1)), ("1.cls", b"0\n"),
            ("2.json", json.dumps({"label": 2}).encode()), ("2.png", png(2)),
            ("5.png", png(5)), ("6.txt", b"no image"),
        ],
    )  # fmt: skip
    write_shard(tmp_path / "val-0.tar", [("9.png", png(9)), ("9.cls", b"2")])
    data = load_shards(tmp_path)
    assert (levels(data.train), data.train.labels.tolist()) == ([1, 2, 5, 3], [0, 2, -1, 1])
    assert (levels(data.test), data.test.labels.tolist()) == ([9], [2])
    assert data.num_classes == 3
    assert levels(load_shards(tmp_path / "b-train.tar").train) == [3]


def test_a_test_shard_that_is_named_alone_is_trained_with(tmp_path):
    write_shard(tmp_path / "test-0.tar", [("9.png", png(9)), ("9.cls", b"2")])
    with pytest.raises(
        DataError, match=r"or train with one alone by data\.options\.root=/.*test-0\.tar"
    ):
        load_shards(tmp_path)
    assert levels(load_shards(tmp_path / "test-0.tar").train) == [9]


def test_shards_that_are_enlarged_to_the_views_say_so(tmp_path):
    write_shard(tmp_path / "a.tar", [("9.png", png(9))])
    assert "typically 8 px wide" in " ".join(load_shards(tmp_path, image_size=16).notes)


def test_shards_run_no_pickle(tmp_path):
    class Boom:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    bad = pickle.dumps(Boom())
    write_shard(
        tmp_path / "a.tar", [("1.png", png(1)), ("1.pyd", bad), ("1.pickle", bad), ("1.pth", bad)]
    )
    assert levels(load_shards(tmp_path).train) == [1]
    assert not (tmp_path / "ran").exists()


def test_several_images_of_one_sample_are_all_taken(tmp_path):
    names = [f"cat.{number}.png" for number in range(3)]
    files = [(name, png(number)) for number, name in enumerate(names)]
    write_shard(tmp_path / "a.tar", [*files, ("cat.1.cls", b"1"), ("cat.cls", b"0")])
    data = load_shards(tmp_path)
    assert (levels(data.train), data.train.labels.tolist()) == ([0, 1, 2], [0, 1, 0])
    assert data.notes == ()


def test_what_is_left_out_of_shards_is_counted(tmp_path):
    write_shard(
        tmp_path / "a.tar",
        [
            ("1.png", png(1)), ("1.mask.png", png(9)), ("1.depth.png", png(9)),
            ("2.txt", b"no image"), ("README", b"x"), ("x/._3.png", b"x"), ("x/3.PNG", png(3)),
        ],
    )  # fmt: skip
    data = load_shards(tmp_path)
    assert levels(data.train) == [1, 3]
    assert data.notes == (
        "left out: files without an ending (1), hidden (1), images beside the one of their sample "
        "(2), samples without an image (1)",
    )
    write_shard(tmp_path / "a.tar", [("2.txt", b"x")])
    with pytest.raises(DataError, match=r"no training images; left out: samples without an image"):
        load_shards(tmp_path)


@pytest.mark.parametrize("name", ["retrieval-train", "interval_0", "latest", "contest.1", "a1"])
def test_a_shard_is_a_test_shard_by_a_whole_word(tmp_path, name):
    write_shard(tmp_path / f"{name}.tar", [("1.png", png(1))])
    for place, word in enumerate(("my-Test", "test2017", "000_test.b")):
        write_shard(tmp_path / f"{word}.tar", [("1.png", png(10 + place))])
    data = load_shards(tmp_path)
    assert levels(data.train) == [1] and sorted(levels(data.test)) == [10, 11, 12]


def test_of_several_test_parts_in_shards_the_first_is_used(tmp_path):
    for value, word in enumerate(("train", "val", "test")):
        write_shard(tmp_path / f"{word}-0.tar", [("1.png", png(value))])
    data = load_shards(tmp_path)
    assert (levels(data.train), levels(data.test)) == ([0], [2])
    assert data.notes == (f"not used: val-0.tar in {tmp_path}",)
    (tmp_path / "test-0.tar").unlink()
    assert levels(load_shards(tmp_path).test) == [1]


@pytest.mark.parametrize(
    ("native", "options", "stored"),
    [(64, {}, 16), (12, {}, 12), (4, {}, 8), (64, {"stored_size": 40}, 40)],
)
def test_what_shards_have_is_stored_at_up_to_twice_the_side_of_the_views(
    tmp_path, native, options, stored
):
    """As files are; a crop of a tenth of a small image is a blur."""
    draw(tmp_path / "one.png", 7, size=native)
    content = (tmp_path / "one.png").read_bytes()
    write_shard(tmp_path / "a.tar", [(f"{number}.png", content) for number in range(300)])
    data = load_shards(tmp_path, **options)
    assert data.train.images(torch.tensor([0, 299])).shape == (2, 3, stored, stored)
    assert (len(data.train), data.image_size) == (300, 8)
    with pytest.raises(ConfigError, match="stored_size=4 is less than"):
        load_shards(tmp_path, stored_size=4)


def test_shards_whose_classes_are_texts_can_be_trained_with_without_classes(tmp_path):
    write_shard(tmp_path / "a.tar", [("1.png", png(1)), ("1.cls", b"cat")])
    with pytest.raises(DataError, match=r"data\.options\.labels=none trains without classes"):
        load_shards(tmp_path)
    assert load_shards(tmp_path, labels="none").train.labels.tolist() == [-1]
    with pytest.raises(ConfigError, match="must be samples or none, not 'folders'"):
        load_shards(tmp_path, labels="folders")


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        ([("1.png", png(1)), ("1.cls", b"cat")], "the class is no whole number"),
        ([("1.txt", b"x")], "there are no training images"),
        (
            [("1.png", b"x"), ("2.png", png(1))],
            "1 images can't be read: .*a.tar, 1: it is no image",
        ),
    ],
)
def test_shards_that_can_not_be_used(tmp_path, samples, says):
    write_shard(tmp_path / "a.tar", samples)
    with pytest.raises(DataError, match=says):
        load_shards(tmp_path)


def test_broken_images_of_shards_can_be_left_out(tmp_path):
    write_shard(tmp_path / "a.tar", [("1.png", b"x"), ("2.png", png(2))])
    data = load_shards(tmp_path, skip_broken=True)
    assert levels(data.train) == [2] and "left out, broken: 1 (" in data.notes[0]


def test_shards_take_the_options_of_pixels(tmp_path):
    dark = io.BytesIO()
    Image.fromarray(np.full((8, 8), 4095, np.uint16)).save(dark, "png")
    write_shard(tmp_path / "a.tar", [("1.png", dark.getvalue())])
    data = load_shards(tmp_path, channels=1, value_range=[0, 4095])
    assert levels(data.train) == [255] and all_images(data.train).shape == (1, 1, 8, 8)
    with pytest.raises(DataError, match=r"more than data\.options\.max_megapixels=1e-05"):
        load_shards(tmp_path, max_megapixels=1e-5)


def test_no_shards_and_no_library(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"there are no \.tar shards"):
        load_shards(tmp_path)
    write_shard(tmp_path / "test.tar", [("1.png", png(1))])
    with pytest.raises(DataError, match=r"all 1 shards .* are test shards"):
        load_shards(tmp_path)
    write_shard(tmp_path / "a.tar", [("1.png", png(1))])
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(ConfigError, match=r"pip install 'dogo-fed\[webdataset\]'"):
        load_shards(tmp_path)


def test_a_broken_shard_is_named(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"no archive at all" * 100)
    with pytest.raises(DataError, match=r"a\.tar can't be read|no training images"):
        load_shards(tmp_path)


# ---- Hugging Face's datasets ----


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    datasets = pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("hf")
    features = datasets.Features(
        {"photo": datasets.Image(), "animal": datasets.ClassLabel(names=["cat", "dog"])}
    )

    def split(values):
        content = {"photo": [grey(v) for v in values], "animal": [v % 2 for v in values]}
        return datasets.Dataset.from_dict(content, features=features)

    both = datasets.DatasetDict({"train": split([3, 2, 1]), "validation": split([8])})
    both.save_to_disk(str(folder / "both"))
    split([7, 6]).remove_columns("animal").save_to_disk(str(folder / "one"))
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(str(folder / "text"))
    return folder


def load_hf(path: Path, **options):
    return build_dataset("hf_dataset", {"path": str(path), "image_size": 8, **options})


def test_saved_data_sets_with_and_without_labels(saved):
    data = load_hf(saved / "both")
    assert (levels(data.train), data.train.labels.tolist()) == ([3, 2, 1], [1, 0, 1])
    assert (levels(data.test), data.test.labels.tolist()) == ([8], [0])
    assert data.class_names == ("cat", "dog")
    data = load_hf(saved / "one")
    assert (levels(data.train), data.train.labels.tolist(), len(data.test)) == ([7, 6], [-1, -1], 0)


def test_saved_data_sets_take_the_options_of_pixels(saved):
    data = load_hf(saved / "both", channels=1, ground="black")
    assert all_images(data.train).shape == (3, 1, 8, 8)
    with pytest.raises(DataError, match=r"more than data\.options\.max_megapixels=1e-05"):
        load_hf(saved / "both", max_megapixels=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("text", {}, "has no column of images; its columns are text"),
        ("both", {"image_column": "image"}, r"no column 'image' \(data\.options\.image_column\)"),
        ("both", {"image_column": "animal"}, "the column 'animal' has no images, but ClassLabel"),
        ("nowhere", {}, "there is no folder"),
        (".", {}, "is not what `save_to_disk`"),
    ],
)
def test_saved_data_sets_that_can_not_be_used(saved, name, options, says):
    with pytest.raises(DataError, match=says):
        load_hf(saved / name, **options)


def test_saved_data_sets_need_a_library_that_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'dogo-fed\[datasets\]'"):
        load_hf(tmp_path)


def test_saved_parts_of_unlike_columns_are_named(tmp_path):
    datasets = pytest.importorskip("datasets")

    def part(name):
        kinds = datasets.Features({name: datasets.Image()})
        return datasets.Dataset.from_dict({name: [grey(1), grey(2)]}, features=kinds)

    parts = {"train": part("photo"), "test": part("scan")}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "two"))
    with pytest.raises(DataError, match="split test has no column 'photo'; its columns are scan"):
        load_hf(tmp_path / "two")
    datasets.DatasetDict({"validation": part("photo")}).save_to_disk(str(tmp_path / "one"))
    with pytest.raises(
        DataError, match=r"no split train; it has validation\. .*\['validation'\]\.save_to"
    ):
        load_hf(tmp_path / "one")


def save_columns(folder: Path, photos, **columns) -> Path:
    """Saves images of these greys, and columns that are given as their type and their values."""
    datasets = pytest.importorskip("datasets")
    kinds = {"photo": datasets.Image()}
    content = {"photo": [None if value is None else grey(value) for value in photos]}
    for name, (kind, values) in columns.items():
        kinds[name], content[name] = datasets.Value(kind), values
    made = datasets.Dataset.from_dict(content, features=datasets.Features(kinds))
    made.save_to_disk(str(folder))
    return folder


@pytest.mark.parametrize("name", ["label", "Labels", "class", "target"])
def test_a_column_of_whole_numbers_that_is_called_label_is_taken(tmp_path, name):
    folder = save_columns(tmp_path / "a", [1, 2, 3], **{name: ("int64", [1, 0, None])})
    data = load_hf(folder)
    assert data.train.labels.tolist() == [1, 0, -1] and data.notes == ()


def test_a_column_of_whole_numbers_with_another_name_is_taken_if_it_is_named(tmp_path):
    folder = save_columns(tmp_path / "a", [1, 2], age=("int32", [1, 0]))
    assert load_hf(folder).train.labels.tolist() == [-1, -1]
    assert load_hf(folder, label_column="age").train.labels.tolist() == [1, 0]


def test_texts_are_classes_if_their_column_is_named(tmp_path):
    texts = ("string", ["dog", "cat", None, ""])
    folder = save_columns(tmp_path / "a", [1, 2, 3, 4], label=texts)
    data = load_hf(folder)
    assert set(data.train.labels.tolist()) == {-1}
    assert data.notes == (
        "the column label is not used; data.options.label_column=label takes its texts as classes",
    )
    data = load_hf(folder, label_column="label")
    assert data.train.labels.tolist() == [1, 0, -1, -1]
    assert (data.class_names, data.notes) == (("cat", "dog"), ())


def test_a_column_of_no_classes_is_refused_or_not_used(tmp_path):
    folder = save_columns(tmp_path / "a", [1, 2], label=("float32", [0.5, 1.0]))
    (note,) = load_hf(folder).notes
    assert "the column label is not used, since its values are neither whole numbers nor" in note
    with pytest.raises(DataError, match=r"'label' has neither whole numbers nor texts .*float32"):
        load_hf(folder, label_column="label")


def test_saved_parts_that_are_not_used_are_named(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"photo": datasets.Image()})
    parts = {
        name: datasets.Dataset.from_dict({"photo": [grey(value)]}, features=features)
        for value, name in enumerate(("train", "validation", "test", "extra"))
    }
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "a"))
    data = load_hf(tmp_path / "a")
    assert levels(data.test) == [2]
    assert data.notes == (f"not used: validation, extra in {tmp_path / 'a'}",)


def test_an_empty_cell_is_a_broken_image(tmp_path):
    folder = save_columns(tmp_path / "a", [1, None, 3])
    with pytest.raises(
        DataError, match=r"1 images can't be read: train, photo 1: there is no imag"
    ):
        load_hf(folder)
    data = load_hf(folder, skip_broken=True)
    assert levels(data.train) == [1, 3] and "left out, broken: 1 (" in data.notes[0]


def test_a_file_that_is_gone_is_a_broken_image(tmp_path, monkeypatch):
    """What is saved now has the bytes; older versions of the library saved where the files are."""
    datasets = pytest.importorskip("datasets")

    class Split(list):
        features = datasets.Features({"photo": datasets.Image()})

        def cast_column(self, name, kind):
            return self

    draw(tmp_path / "there.png", 7)
    rows = [
        {"photo": {"bytes": None, "path": str(tmp_path / name)}}
        for name in ("gone.png", "there.png")
    ]
    monkeypatch.setattr(datasets, "load_from_disk", lambda path: {"train": Split(rows)})
    with pytest.raises(DataError, match=r"photo 0 \(.*gone\.png\): No such file"):
        load_hf(tmp_path)
    assert levels(load_hf(tmp_path, skip_broken=True).train) == [7]


# ---- DICOM ----


def write_dicom(path: Path, pixels, syntax=None, content=None, **header) -> None:
    """Writes pixels, or a content that stands for them in a transfer syntax."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax or ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    made = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, generate_uid()
    pixels = np.asarray(pixels)
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel = 1
    if pixels.ndim == 3:
        made.SamplesPerPixel, made.PlanarConfiguration = 3, 0
    made.PhotometricInterpretation = "MONOCHROME2"
    made.BitsAllocated = 16
    made.BitsStored = 12
    made.HighBit = 11
    made.PixelRepresentation = 0
    for name, value in header.items():
        setattr(made, name, value)
    kind = f"<{'i' if made.PixelRepresentation else 'u'}{made.BitsAllocated // 8}"
    made.PixelData = content or pixels.astype(kind).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, made, enforce_file_format=True)


def dicom_levels(tmp_path, pixels, options=None, **header):
    write_dicom(tmp_path / "a.dcm", pixels, **header)
    data = load_folder(tmp_path, **(options or {}))
    return all_images(data.train)[0, 0]


RAMP = np.linspace(0, 4095, 8, dtype=np.uint16)[None].repeat(8, 0)


def test_dicom_is_scaled_by_its_stored_bits(tmp_path):
    shown = dicom_levels(tmp_path, RAMP)
    assert (shown[0] - torch.linspace(0, 255, 8)).abs().max() <= 1


def test_dicom_is_stored_at_up_to_twice_the_side_of_the_views(tmp_path):
    write_dicom(tmp_path / "a.dcm", np.zeros((40, 24), np.uint16))
    assert all_images(load_folder(tmp_path).train).shape[-1] == 16
    assert all_images(load_folder(tmp_path, image_size=16).train).shape[-1] == 24
    write_dicom(tmp_path / "a.dcm", np.zeros((4, 4), np.uint16))
    assert all_images(load_folder(tmp_path).train).shape[-1] == 8


def test_dicom_shows_its_window_or_the_range_that_is_stated(tmp_path):
    shown = dicom_levels(tmp_path, RAMP, WindowCenter=1000, WindowWidth=400)
    assert shown[0].tolist()[0] == 0 and shown[0].tolist()[3:] == [255] * 5
    stated = dicom_levels(
        tmp_path, RAMP, {"value_range": [0, 8190]}, WindowCenter=1000, WindowWidth=9
    )
    assert (stated[0] - torch.linspace(0, 127.5, 8)).abs().max() <= 1


def test_dicom_in_units_of_its_modality(tmp_path):
    air_to_bone = np.linspace(0, 2000, 8, dtype=np.uint16)[None].repeat(8, 0)
    shown = dicom_levels(
        tmp_path,
        air_to_bone,
        {"value_range": [-1000, 1000]},
        RescaleSlope=1,
        RescaleIntercept=-1000,
    )
    assert (shown[0] - torch.linspace(0, 255, 8)).abs().max() <= 1


def test_dicom_whose_low_values_are_bright_is_turned_over(tmp_path):
    shown = dicom_levels(tmp_path, RAMP, PhotometricInterpretation="MONOCHROME1")
    assert (shown[0] - torch.linspace(255, 0, 8)).abs().max() <= 1


@pytest.mark.parametrize("name", ["WindowCenter", "WindowWidth", "RescaleSlope"])
def test_dicom_that_names_a_value_and_leaves_it_empty(tmp_path, name):
    given = {"WindowCenter": 9, "WindowWidth": 9, "RescaleSlope": 1, "RescaleIntercept": 0}
    if name == "RescaleSlope":
        given["WindowCenter"] = None
    shown = dicom_levels(tmp_path, RAMP, **{**given, name: None})
    assert (shown[0] - torch.linspace(0, 255, 8)).abs().max() <= 1


EIGHT_BITS = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
RED = (200, 30, 60)


def dicom_colours(tmp_path, pixels, options=None, **given):
    """Returns the first row as it is shown: W x 3."""
    write_dicom(tmp_path / "a.dcm", pixels, **given)
    data = load_folder(tmp_path, **(options or {}))
    return all_images(data.train)[0, :, 0].T.tolist()


def one_colour(colour, side=8):
    return np.full((side, side, 3), colour, np.uint8)


def test_dicom_in_rgb(tmp_path):
    shown = dicom_colours(tmp_path, one_colour(RED), PhotometricInterpretation="RGB", **EIGHT_BITS)
    assert shown == [list(RED)] * 8


@pytest.mark.parametrize("kind", ["YBR_FULL", "YBR_FULL_422"])
def test_dicom_in_ybr_is_converted_once(tmp_path, kind):
    processing = pytest.importorskip("pydicom.pixels.processing")
    ybr = processing.convert_color_space(one_colour(RED), "RGB", "YBR_FULL")
    y, b, r = ybr[0, 0].tolist()
    content = bytes([y, y, b, r] * 32) if kind == "YBR_FULL_422" else None
    shown = dicom_colours(
        tmp_path, ybr, content=content, PhotometricInterpretation=kind, **EIGHT_BITS
    )
    assert np.abs(np.array(shown) - RED).max() <= 2


@pytest.mark.parametrize("kind", ["YBR_RCT", "YBR_ICT"])
def test_dicom_in_jpeg_2000(tmp_path, kind):
    encaps = pytest.importorskip("pydicom.encaps")
    if not features.check_codec("jpg_2000"):
        pytest.skip("this Pillow has no JPEG 2000")
    stream = io.BytesIO()
    pixels = one_colour(RED, 64)
    Image.fromarray(pixels).save(
        stream, "JPEG2000", no_jp2=True, mct=1, irreversible=kind == "YBR_ICT"
    )
    shown = dicom_colours(
        tmp_path,
        pixels,
        syntax=f"1.2.840.10008.1.2.4.9{'0' if kind == 'YBR_RCT' else '1'}",
        content=encaps.encapsulate([stream.getvalue()]),
        PhotometricInterpretation=kind,
        **EIGHT_BITS,
    )
    assert np.abs(np.array(shown) - RED).max() <= 2


def test_dicom_that_needs_a_library_names_it(tmp_path):
    encaps = pytest.importorskip("pydicom.encaps")
    lossless = "1.2.840.10008.1.2.4.70"
    pixels = one_colour(RED)[..., 0]
    with pytest.raises(DataError, match=r"pip install 'pylibjpeg\[all\]' reads it"):
        dicom_colours(
            tmp_path, pixels, syntax=lossless, content=encaps.encapsulate([b"\xff\xd8"]),
            PhotometricInterpretation="MONOCHROME2", **EIGHT_BITS,
        )  # fmt: skip


def test_dicom_colours_of_more_bits_are_scaled_by_their_range(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint16)
    pixels[..., 0], pixels[..., 1] = 4095, 2048
    shown = dicom_colours(tmp_path, pixels, PhotometricInterpretation="RGB")
    assert shown == [[255, 128, 0]] * 8
    stated = dicom_colours(
        tmp_path, pixels, {"value_range": [0, 2048]}, PhotometricInterpretation="RGB"
    )
    assert stated == [[255, 255, 0]] * 8


def test_dicom_with_a_palette_shows_its_colours(tmp_path):
    pytest.importorskip("pydicom")
    table = {
        "Red": [65535, 0, 0, 32768],
        "Green": [0, 65535, 0, 32768],
        "Blue": [0, 0, 65535, 32768],
    }
    header = {}
    for name, values in table.items():
        header[f"{name}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
        header[f"{name}PaletteColorLookupTableData"] = np.array(values, "<u2").tobytes()
    numbers = np.repeat(np.arange(4), 2)[None].repeat(8, 0)
    shown = dicom_colours(
        tmp_path, numbers, PhotometricInterpretation="PALETTE COLOR", **EIGHT_BITS, **header
    )
    assert shown[::2] == [[255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128]]


def test_dicom_of_a_kind_of_colours_that_is_not_read_is_broken(tmp_path):
    write_dicom(tmp_path / "a.dcm", one_colour(RED), PhotometricInterpretation="HSV", **EIGHT_BITS)
    with pytest.raises(DataError, match=r"a\.dcm: DICOM: .*colours of the kind HSV can't be read"):
        load_folder(tmp_path)


def test_dicom_of_several_frames_shows_the_first_and_says_so(tmp_path):
    frames = np.stack([RAMP, RAMP[:, ::-1], RAMP]).astype("<u2").tobytes()
    write_dicom(tmp_path / "a.dcm", RAMP, content=frames, NumberOfFrames=3)
    write_dicom(tmp_path / "b.dcm", RAMP)
    data = load_folder(tmp_path)
    assert torch.equal(*all_images(data.train))
    assert data.notes == ("1 images have more than one frame; the first is taken",)


def test_dicom_files_are_found_by_how_they_begin(tmp_path):
    for number, name in enumerate(("1.2.840.113619.2.5", "1.2.840.113619.2.6", "IM1.IMA", "x.v2")):
        write_dicom(tmp_path / name, np.full((8, 8), 1000 * number))
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + b"x" * 20)
    (tmp_path / "notes.txt").write_text("x" * 200)
    data = load_folder(tmp_path)
    assert levels(data.train) == [0, 62, 125, 187]
    assert data.notes == ("left out: no image: .txt (1), no image: DICOMDIR (1)",)


def test_dicom_files_are_found_without_pydicom_too_and_the_extra_is_named(tmp_path, monkeypatch):
    from dogo_fed.data.files import dicom, listing

    listing.suffixes()  # kept as they are with the extra
    draw(tmp_path / "x.png", 7)
    for name in ("1.2.840.5", "1.2.840.6", "IM0001"):
        (tmp_path / name).write_bytes(b"\0" * 128 + b"DICM" + b"x" * 20)
    monkeypatch.setattr(dicom, "has_pydicom", lambda: False)
    data = load_folder(tmp_path)
    assert data.notes == ("left out: no image: DICOM, needs pip install 'dogo-fed[dicom]' (3)",)


def test_not_every_file_of_one_ending_is_opened_in_search_of_dicom(tmp_path, monkeypatch):
    from dogo_fed.data.files import dicom

    opened = []
    monkeypatch.setattr(dicom, "is_dicom", lambda path: opened.append(path.suffix))
    draw(tmp_path / "x.png", 7)
    for number in range(40):
        (tmp_path / f"{number}.json").write_text("x")
        (tmp_path / f"raw.{number}").write_text("x")
        (tmp_path / f"{number}.tar").write_text("x")
    assert len(load_folder(tmp_path).train) == 1
    assert opened.count(".json") == 16 and len(opened) == 32


def test_dicom_files_among_others_of_their_ending_are_all_found(tmp_path):
    for number in range(40):
        if number % 8:
            (tmp_path / f"{number:02d}.img1").write_text("x")
        else:
            write_dicom(tmp_path / f"{number:02d}.img1", RAMP)
    assert len(load_folder(tmp_path).train) == 5


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no such files")
def test_a_pipe_is_not_read(tmp_path):
    draw(tmp_path / "x.png", 7)
    os.mkfifo(tmp_path / "pipe.1")
    os.mkfifo(tmp_path / "pipe")
    assert len(load_folder(tmp_path).train) == 1


def test_dicom_files_without_an_ending_beside_pictures(tmp_path):
    write_dicom(tmp_path / "train/ill/IM0001", np.full((8, 8), 4095))
    write_dicom(tmp_path / "train/well/IM0002", np.full((8, 8), 0))
    (tmp_path / "train/well/README").write_text("no image")
    draw(tmp_path / "train/well/x.png", 7)
    data = load_folder(tmp_path)
    assert (levels(data.train), data.train.labels.tolist()) == ([255, 0, 7], [0, 1, 1])
    assert "no image: README (1)" in data.notes[0]


def test_a_broken_dicom_file_is_named(tmp_path):
    write_dicom(tmp_path / "a.dcm", RAMP)
    whole = (tmp_path / "a.dcm").read_bytes()
    (tmp_path / "b.dcm").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.dcm").write_bytes(b"x" * 200)
    with pytest.raises(DataError) as caught:
        load_folder(tmp_path)
    message = str(caught.value)
    assert "2 images can't be read" in message
    assert "b.dcm: DICOM: " in message and "c.dcm: DICOM: " in message


def test_without_pydicom_dicom_files_are_left_out_by_name(tmp_path, monkeypatch):
    from dogo_fed.data.files import dicom, listing

    draw(tmp_path / "x.png", 7)
    (tmp_path / "a.dcm").write_bytes(b"x")
    monkeypatch.setattr(dicom, "has_pydicom", lambda: False)
    listing.suffixes.cache_clear()
    try:
        data = load_folder(tmp_path)
    finally:
        listing.suffixes.cache_clear()
    assert data.notes[0] == "left out: no image: .dcm, needs pip install 'dogo-fed[dicom]' (1)"
