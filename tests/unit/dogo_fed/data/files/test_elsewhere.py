"""Images that are no folder of pictures: arrays, shards, tables, DICOM; each from a small made file."""

from __future__ import annotations

import io
import json
import pickle
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

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
    assert "train_labels of shape (6, 14) are not one class for each image" in data.notes[0]


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


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("text", {}, "has no column of images; its columns are text"),
        ("both", {"image_column": "image"}, r"no column 'image' \(data\.options\.image_column\)"),
        ("nowhere", {}, "there is no folder"),
        (".", {}, "is not what `save_to_disk`"),
    ],
)
def test_saved_data_sets_that_can_not_be_used(saved, name, options, says):
    with pytest.raises(DataError, match=says):
        load_hf(saved / name, **options)


# ---- DICOM ----


def write_dicom(path: Path, pixels, **header) -> None:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    made = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, generate_uid()
    pixels = np.asarray(pixels)
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel = 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.BitsAllocated = 16
    made.BitsStored = 12
    made.HighBit = 11
    made.PixelRepresentation = 0
    for name, value in header.items():
        setattr(made, name, value)
    made.PixelData = pixels.astype("<i2" if made.PixelRepresentation else "<u2").tobytes()
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
