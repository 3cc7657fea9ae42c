"""Writes small inputs of the kinds that people bring: folders of images, files, words on a command line.

Each kind is a function that writes into a folder and returns the settings of `dogo-fed train` that name
it. The images are stripes whose direction and colour tell the class.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

CLASSES = ("cat", "dog", "owl")
SIDE = 72

Kind: TypeAlias = Callable[[Path], list[str]]
KINDS: dict[str, Kind] = {}
"""By what they are, in the order of the table."""


def kind(name: str) -> Callable[[Kind], Kind]:
    """Adds a kind."""

    def add(function: Kind) -> Kind:
        KINDS[name] = function
        return function

    return add


def picture(label: int, number: int, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """Returns an image of a class; another number, other noise. The size is width and height."""
    draws = np.random.default_rng((label, number))
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    wave = np.sin((x * (label != 1) + y * (label != 0)) / 3.0) * 90 + 110
    tint = np.array([0.5 + 0.25 * ((label + channel) % 3) for channel in range(3)])
    pixels = wave[..., None] * tint + draws.normal(0, 12, (*wave.shape, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def fill(
    folder: Path, number: int, *, label: int = 0, end: str = "jpg", mode: str = "RGB",
    size: tuple[int, int] = (SIDE, SIDE), **how: Any,
) -> None:  # fmt: skip
    """Writes images of one class into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(number):
        image = picture(label, index, size).convert(mode)
        image.save(folder / f"img_{index:03d}.{end}", **how)


def split(root: Path, parts: Sequence[str] = ("train", "test"), **how: Any) -> Path:
    """Writes class folders below each part: 24 images a class in the first, 12 in the others."""
    for place, part in enumerate(parts):
        for label, name in enumerate(CLASSES):
            fill(root / part / name, 12 if place else 24, label=label, **how)
    return root


def at(root: Path) -> list[str]:
    """Returns the settings that name a folder, or a file."""
    return [f"data={root}"]


# ---- layouts ----


@kind("class folders in train and test")
def _usual(here: Path) -> list[str]:
    return at(split(here / "images"))


@kind("no labels: a flat folder")
def _flat(here: Path) -> list[str]:
    for label in range(3):
        fill(here / "photos", 24, label=label, end=("jpg", "png", "webp")[label])
    return at(here / "photos")


@kind("no labels: nested folders, some deep")
def _deep(here: Path) -> list[str]:
    for place in ("2023/summer/beach", "2023/winter", "2024"):
        fill(here / "photos" / place, 24)
    return at(here / "photos")


@kind("no labels: images in train/, classes in test/")
def _flat_train(here: Path) -> list[str]:
    split(here / "images", parts=("test",))
    fill(here / "images" / "train", 60)
    return at(here / "images")


@kind("class folders and no test part")
def _no_test(here: Path) -> list[str]:
    return at(split(here / "images", parts=("train",)))


@kind("class folders at the top")
def _root_classes(here: Path) -> list[str]:
    return at(split(here, parts=("images",)) / "images")


@kind("one class")
def _one_class(here: Path) -> list[str]:
    for part, number in (("train", 60), ("test", 20)):
        fill(here / "images" / part / "all", number)
    return at(here / "images")


@kind("Train and Valid")
def _valid(here: Path) -> list[str]:
    return at(split(here / "images", parts=("Train", "Valid")))


@kind("train_images and test_images")
def _worded_parts(here: Path) -> list[str]:
    return at(split(here / "images", parts=("train_images", "test_images")))


@kind("train2017 and val2017, no classes")
def _coco(here: Path) -> list[str]:
    for part, number in (("train2017", 60), ("val2017", 12)):
        fill(here / "images" / part, number)
    return at(here / "images")


@kind("albums, one of them called test (labels=none)")
def _album_test(here: Path) -> list[str]:
    for name in ("holiday", "test"):
        fill(here / "photos" / name, 30)
    return [*at(here / "photos"), "data.options.labels=none"]


@kind("folders below the class folders")
def _below(here: Path) -> list[str]:
    for part in ("train", "test"):
        for label, name in enumerate(CLASSES):
            for camera in ("left", "right"):
                fill(here / "images" / part / name / camera, 12, label=label)
    return at(here / "images")


@kind("an unpacked zip file of a Mac")
def _mac(here: Path) -> list[str]:
    root = split(here / "images")
    fill(root / "__MACOSX" / "train" / "cat", 1)
    (root / "train" / "cat" / "._img_001.jpg").write_bytes(b"\0\5\26\7")
    (root / "train" / ".DS_Store").write_bytes(b"x")
    (root / "train" / "Thumbs.db").write_bytes(b"x")
    return at(root)


@kind("a class folder without images")
def _empty_class(here: Path) -> list[str]:
    root = split(here / "images")
    (root / "train" / "zebra").mkdir()
    return at(root)


@kind("a class that is only in test")
def _strange_class(here: Path) -> list[str]:
    root = split(here / "images")
    fill(root / "test" / "zebra", 5)
    return at(root)


def _labels(here: Path, headings: str, rows: Sequence[str]) -> list[str]:
    """Writes 60 photos without folders, and a table about them."""
    fill(here / "photos", 60)
    (here / "labels.csv").write_text("\n".join([headings, *rows]) + "\n")
    return [*at(here / "photos"), f"data.options.labels={here / 'labels.csv'}"]


@kind("labels in a table, most images without")
def _table(here: Path) -> list[str]:
    rows = [f"img_{index:03d}.jpg,{CLASSES[index // 3 % 3]}" for index in range(0, 60, 3)]
    return _labels(here, "file,label", rows)


@kind("labels in a table of several columns, without endings")
def _wide_table(here: Path) -> list[str]:
    rows = [f"{index},img_{index:03d},{CLASSES[index % 3]}" for index in range(60)]
    return _labels(here, "patient,image_id,dx", rows)


@kind("labels in a table with headings of its own")
def _strange_headings(here: Path) -> list[str]:
    rows = [f"{index},img_{index:03d}.jpg,{CLASSES[index % 3]};tame" for index in range(60)]
    return _labels(here, "Nr,Image Index,Finding Labels", rows)


@kind("labels in a table with outlines of masks")
def _outlines(here: Path) -> list[str]:
    outline = "1 2 " * 40_000
    rows = [f"img_{index:03d}.jpg,{outline},{CLASSES[index % 3]}" for index in range(60)]
    return _labels(here, "image,outline,label", rows)


@kind("labels in a table of more images than are here")
def _larger_table(here: Path) -> list[str]:
    rows = [f"img_{index:03d}.jpg,{CLASSES[index % 3]}" for index in range(300)]
    return _labels(here, "image,label", rows)


@kind("annotations in JSON in place of a table")
def _annotations(here: Path) -> list[str]:
    fill(here / "photos", 60)
    (here / "photos" / "instances.json").write_text('{"images": [' + "1, " * 60_000 + "1]}")
    return [*at(here / "photos"), "data.options.labels=instances.json"]


@kind("images and masks in train and test")
def _masks(here: Path) -> list[str]:
    for part, number in (("train", 48), ("test", 12)):
        fill(here / "images" / part / "images", number)
        fill(here / "images" / part / "masks", number, label=2, end="png", mode="L")
    return at(here / "images")


@kind("faults that are in the test part alone, as in MVTec")
def _faults(here: Path) -> list[str]:
    fill(here / "bottle" / "train" / "good", 48)
    fill(here / "bottle" / "test" / "good", 6)
    fill(here / "bottle" / "test" / "broken", 6, label=1)
    return at(here / "bottle")


@kind("the same without classes")
def _faults_alone(here: Path) -> list[str]:
    return [*_faults(here), "data.options.labels=none"]


@kind("images of 20 pixels")
def _small(here: Path) -> list[str]:
    fill(here / "images", 60, end="png", size=(20, 20))
    return at(here / "images")


@kind("a folder around train and test")
def _wrapped(here: Path) -> list[str]:
    split(here / "download" / "dataset")
    return at(here / "download")


@kind("train and test in each of several folders")
def _several_sets(here: Path) -> list[str]:
    for name in ("bottle", "cable"):
        split(here / "images" / name)
    return at(here / "images")


@kind("linked folders, and a link to nowhere")
def _links(here: Path) -> list[str]:
    split(here / "real")
    (here / "images").mkdir()
    for part in ("train", "test"):
        os.symlink(here / "real" / part, here / "images" / part)
    os.symlink("/nowhere/gone.jpg", here / "real" / "train" / "cat" / "gone.jpg")
    return at(here / "images")


# ---- names ----


@kind("blanks, commas, brackets and = in names")
def _names(here: Path) -> list[str]:
    root = split(here / "my images (v1), a=b")
    (root / "train" / "cat").rename(root / "train" / "Katze gro\u00df \u732b")
    (root / "test" / "cat").rename(root / "test" / "Katze gro\u00df \u732b")
    return at(root)


@kind("a name that is not UTF-8")
def _latin1(here: Path) -> list[str]:
    root = split(here / "images")
    folder = os.fsencode(root / "train" / "cat")
    os.rename(folder + b"/img_000.jpg", folder + b"/caf\xe9.jpg")
    return at(root)


@kind("photos without an ending")
def _no_ending(here: Path) -> list[str]:
    fill(here / "photos", 60)
    for photo in (here / "photos").iterdir():
        photo.rename(photo.with_suffix(""))
    return at(here / "photos")


@kind("endings in capitals")
def _capitals(here: Path) -> list[str]:
    return at(split(here / "images", end="JPG", format="JPEG"))


# ---- formats and pixels ----


def _format(end: str, **how: Any) -> Kind:
    return lambda here: at(split(here / "images", end=end, **how))


for _end in ("webp", "tif", "bmp", "gif", "ppm", "jfif"):
    KINDS[f".{_end} files"] = _format(_end, **({"format": "JPEG"} if _end == "jfif" else {}))
for _mode, _ending in (
    ("L", "png"),
    ("LA", "png"),
    ("P", "png"),
    ("RGBA", "png"),
    ("1", "png"),
    ("CMYK", "jpg"),
):
    KINDS[f"mode {_mode} (.{_ending})"] = _format(_ending, mode=_mode)


@kind("16-bit grey")
def _grey16(here: Path) -> list[str]:
    return _grey(here, lambda grey: grey.astype(np.uint16) * 257, "png")


@kind("32-bit floats (.tif)")
def _floats(here: Path) -> list[str]:
    return _grey(here, lambda grey: grey.astype(np.float32) / 255, "tif")


def _grey(here: Path, scaled: Callable[[Any], Any], end: str) -> list[str]:
    """Writes class folders of grey pictures whose pixels are of another type."""
    for part, number in (("train", 24), ("test", 12)):
        for label, name in enumerate(CLASSES):
            folder = here / "images" / part / name
            folder.mkdir(parents=True)
            for index in range(number):
                grey = scaled(np.asarray(picture(label, index).convert("L")))
                Image.fromarray(grey).save(folder / f"{index}.{end}")
    return at(here / "images")


@kind("12 of 16 bits (value_range)")
def _twelve_bits(here: Path) -> list[str]:
    return [
        *_grey(here, lambda grey: grey.astype(np.uint16) * 16, "png"),
        "data.options.value_range=[0,4095]",
    ]


@kind("12 of 16 bits, and nobody says so")
def _untold_bits(here: Path) -> list[str]:
    return _grey(here, lambda grey: grey.astype(np.uint16) * 16, "png")


@kind("floats with missing numbers (.tif)")
def _missing_numbers(here: Path) -> list[str]:
    def scaled(grey: Any) -> Any:
        floats = grey.astype(np.float32) / 255
        floats[:2] = np.nan
        return floats

    return _grey(here, scaled, "tif")


@kind("one channel (channels=1)")
def _one_channel(here: Path) -> list[str]:
    return [*at(split(here / "images", mode="L", end="png")), "data.options.channels=1"]


@kind("turned by EXIF")
def _exif(here: Path) -> list[str]:
    root, exif = split(here / "images"), Image.Exif()
    exif[0x0112] = 6
    picture(0, 0, (80, 40)).save(root / "train" / "cat" / "img_000.jpg", exif=exif)
    return at(root)


@kind("images of 1 x 1, 1 x 3000 and 6000 x 4000")
def _sizes(here: Path) -> list[str]:
    root = split(here / "images")
    for name, size in (("one.png", (1, 1)), ("thin.png", (1, 3000)), ("big.jpg", (6000, 4000))):
        Image.new("RGB", size).save(root / "train" / "cat" / name)
    return at(root)


@kind("a scan of 100 megapixels")
def _large_scan(here: Path) -> list[str]:
    root = split(here / "images")
    Image.new("1", (10000, 10000)).save(root / "train" / "cat" / "scan.png")
    return at(root)


@kind("a scan of 200 megapixels")
def _scan(here: Path) -> list[str]:
    root = split(here / "images")
    Image.new("1", (20000, 10000)).save(root / "train" / "cat" / "scan.png")
    return at(root)


# ---- broken ----


@kind("three broken files")
def _broken(here: Path) -> list[str]:
    root = split(here / "images")
    for index, size in ((3, 300), (4, 0), (5, 10)):
        path = root / "train" / "dog" / f"img_{index:03d}.jpg"
        path.write_bytes(path.read_bytes()[:size])
    return at(root)


@kind("the same with skip_broken=true")
def _skipped(here: Path) -> list[str]:
    return [*_broken(here), "data.options.skip_broken=true"]


@kind("12 images")
def _few(here: Path) -> list[str]:
    fill(here / "photos", 12)
    return at(here / "photos")


# ---- elsewhere than in folders ----


@kind("DICOM files without an ending")
def _dicom(here: Path) -> list[str]:
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    (here / "scans").mkdir()
    for index in range(72):
        grey = np.asarray(picture(index % 3, index).convert("L")).astype(np.uint16) * 16
        scan = pydicom.Dataset()
        scan.file_meta = pydicom.dataset.FileMetaDataset()
        scan.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        scan.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        scan.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        scan.Rows, scan.Columns = grey.shape
        scan.SamplesPerPixel, scan.PhotometricInterpretation = 1, "MONOCHROME2"
        scan.BitsAllocated, scan.BitsStored, scan.HighBit = 16, 12, 11
        scan.PixelRepresentation, scan.PixelData = 0, grey.tobytes()
        scan.save_as(here / "scans" / f"IM{index:04d}", enforce_file_format=True)
    return at(here / "scans")


@kind("an .npz file (MedMNIST)")
def _npz(here: Path) -> list[str]:
    images = np.stack([np.asarray(picture(index % 3, index).convert("L")) for index in range(90)])
    labels = (np.arange(90) % 3)[:, None]
    here.mkdir(exist_ok=True)
    np.savez(
        here / "medmnist.npz", train_images=images[:60], train_labels=labels[:60],
        test_images=images[60:], test_labels=labels[60:],
    )  # fmt: skip
    return at(here / "medmnist.npz")


@kind("webdataset shards (.tar)")
def _shards(here: Path) -> list[str]:
    folder = here / "shards"
    folder.mkdir()
    for shard in range(2):
        with tarfile.open(folder / f"photos-{shard:03d}.tar", "w") as tar:
            for index in range(36):
                content = io.BytesIO()
                picture(index % 3, index).save(content, format="JPEG")
                for end, body in (("jpg", content.getvalue()), ("cls", b"%d" % (index % 3))):
                    entry = tarfile.TarInfo(f"{shard}{index:04d}.{end}")
                    entry.size = len(body)
                    tar.addfile(entry, io.BytesIO(body))
    return ["data=webdataset", f"data.options.root={folder}"]


@kind("a data set of Hugging Face, saved to disk")
def _hugging_face(here: Path) -> list[str]:
    import datasets

    content = {
        "image": [picture(index % 3, index) for index in range(72)],
        "label": [index % 3 for index in range(72)],
    }
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    made = datasets.Dataset.from_dict(content, features=features)
    made.save_to_disk(str(here / "saved"))
    return ["data=hf_dataset", f"data.options.path={here / 'saved'}"]


_OWN = """
from pathlib import Path
import numpy as np
from PIL import Image
class Photos:
    def __init__(self, first, last): self.files = sorted(Path("photos").glob("*.jpg"))[first:last]
    def __len__(self): return len(self.files)
    def __getitem__(self, i): return self.item(Image.open(self.files[i]).resize((32, 32)), i)
    def item(self, image, i): return image
class Unlabelled(Photos):
    def item(self, image, i): return image, None
class Grey16(Photos):
    def item(self, image, i): return np.asarray(image.convert("L")).astype(np.uint16) * 257, i % 3
class Vector(Photos):
    def item(self, image, i): return image, [i % 3]
def images(): return Photos(0, 72)
def unlabelled(): return Unlabelled(0, 60), Unlabelled(60, 72)
def no_test_images(): return Photos(0, 72), Photos(72, 72)
def grey16(): return Grey16(0, 60), Grey16(60, 72)
def vector(): return Vector(0, 60), Vector(60, 72)
"""


def _own(function: str) -> Kind:
    def write(here: Path) -> list[str]:
        fill(here / "photos", 72)
        (here / "mydata.py").write_text(_OWN)
        return [f"data.name=mydata:{function}"]

    return write


KINDS |= {
    "a data set of one's own: images, no labels": _own("images"),
    "a data set of one's own: pairs, labels None": _own("unlabelled"),
    "a data set of one's own: an empty test part": _own("no_test_images"),
    "a data set of one's own: arrays of 16 bits": _own("grey16"),
    "a data set of one's own: a label in a list": _own("vector"),
}

_NET = """
from torch import nn
class Breaks(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.embed, self.calls = nn.Conv2d(3, 8, 3), 0
    def forward(self, images):
        self.calls += self.training
        if self.calls > AFTER: raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        return self.embed(images).mean((2, 3))
"""


def _own_network(after: int) -> Kind:
    def write(here: Path) -> list[str]:
        split(here / "images")
        (here / "mynets.py").write_text(_NET.replace("AFTER", str(after)))
        return [*at(here / "images"), "peers.wide.backbone=mynets:Breaks"]

    return write


KINDS |= {
    "a network of one's own that fails at once": _own_network(0),
    "a network of one's own that fails at the third step": _own_network(6),
}


# ---- words ----


def _words(*settings: str) -> Kind:
    def write(here: Path) -> list[str]:
        split(here / "images")
        return [one.replace("@", str(here / "images")) for one in settings]

    return write


def _blank(here: Path) -> list[str]:
    split(here / "my images")
    return [f"data={here / 'my'}", "images"]


KINDS |= {
    "data.root=": _words("data.root=@"),
    "root=": _words("root=@"),
    "a blank without quotes": _blank,
    "data=~photos": lambda here: ["data=~photos"],
    "data.image_size=": _words("data=@", "data.image_size=64"),
    "epochs=": _words("data=@", "epochs=2"),
    "--epochs 2": _words("data=@", "--epochs", "2"),
    "lr=": _words("data=@", "lr=0.01"),
    "peers=resnet18,mobilenet_v2": _words("data=@", "peers=resnet18,mobilenet_v2"),
    "peers=[small_cnn,resnet10]": _words("data=@", "peers=[small_cnn,resnet10]"),
    "peers.wide.backbone=resnet10": _words("data=@", "peers.wide.backbone=resnet10"),
    "backbone=resnet10": _words("data=@", "backbone=resnet10"),
    "a cosine schedule and a longest gradient": _words(
        "data=@", "peers.wide.optimizer.schedule=cosine", "peers.wide.optimizer.clip_norm=1"
    ),
    "batch_size=4096 for 72 images": _words("data=@", "batch_size=4096"),
}


# ---- weights ----


def _resnet18() -> dict[str, Any]:
    import torch
    import torchvision

    torch.manual_seed(0)
    return dict(torchvision.models.resnet18().state_dict())


def _weights(write: Callable[[Path, dict[str, Any]], None], name: str) -> Kind:
    def make(here: Path) -> list[str]:
        split(here / "images")
        write(here / name, _resnet18())
        return [
            f"data={here / 'images'}", "data.options.image_size=128",
            "peers.wide.backbone=resnet18", f"peers.wide.init={here / name}",
        ]  # fmt: skip

    return make


def _save(content: Any, path: Path) -> None:
    import torch

    torch.save(content, path)


def _moco(path: Path, weights: dict[str, Any]) -> None:
    names = {
        f"module.encoder_{which}.{name}": value for which in "qk" for name, value in weights.items()
    }
    _save({"epoch": 200, "state_dict": names}, path)


def _solo_learn(path: Path, weights: dict[str, Any]) -> None:
    _save({"state_dict": {f"backbone.{name}": value for name, value in weights.items()}}, path)


def _namespace(path: Path, weights: dict[str, Any]) -> None:
    import argparse

    _save({"state_dict": weights, "args": argparse.Namespace(lr=0.1)}, path)


def _byol(path: Path, weights: dict[str, Any]) -> None:
    parts = ("online_encoder.net.", "target_encoder.net.")
    _save({part + name: value for part in parts for name, value in weights.items()}, path)


def _lightly(path: Path, weights: dict[str, Any]) -> None:
    import torch

    body = {f"backbone.{name}": one for name, one in weights.items() if not name.startswith("fc.")}
    _save({"state_dict": {**body, "projection_head.layers.0.weight": torch.zeros(8, 512)}}, path)


def _mask_token(path: Path, weights: dict[str, Any]) -> None:
    import torch

    _save({**weights, "mask_token": torch.zeros(1, 1, 8), "decoder.0.weight": torch.zeros(2)}, path)


def _timm(path: Path, weights: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    save_file({name: value.clone() for name, value in weights.items()}, path)


def _teacher(here: Path) -> list[str]:
    split(here / "images")
    _save(_resnet18(), here / "public.pth")
    return [
        f"data={here / 'images'}", "data.options.image_size=128", "peers=[small_cnn,resnet18]",
        "exchange.rows=features", f"peers.resnet18.frozen_from={here / 'public.pth'}",
    ]  # fmt: skip


KINDS |= {
    "init: torchvision's weights": _weights(
        lambda path, weights: _save(weights, path), "plain.pth"
    ),
    "init: weights of DistributedDataParallel": _weights(
        lambda path, weights: _save(
            {"state_dict": {f"module.{name}": one for name, one in weights.items()}}, path
        ),
        "ddp.pth.tar",
    ),
    "init: MoCo's checkpoint": _weights(_moco, "moco.pth.tar"),
    "init: solo-learn's checkpoint": _weights(_solo_learn, "solo.ckpt"),
    "init: BYOL's checkpoint": _weights(_byol, "byol.pth"),
    "init: lightly's checkpoint": _weights(_lightly, "lightly.ckpt"),
    "init: a .safetensors file, as timm's": _weights(_timm, "timm.safetensors"),
    "init: weights with a mask token and a decoder": _weights(_mask_token, "masked.pth"),
    "init: a checkpoint with a class in it": _weights(_namespace, "namespace.pth"),
    "init: a web page in place of weights": _weights(
        lambda path, weights: path.write_text("<!DOCTYPE html><html>404</html>") and None,
        "page.pth",
    ),
    "frozen_from: torchvision's weights": _teacher,
}
