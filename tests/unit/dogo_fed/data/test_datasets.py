"""Data sets: the registry, each builder on a small copy of the real layout, and users' own."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from dogo_fed import components
from dogo_fed.data.catalog import DATASETS
from dogo_fed.data.datasets import build_dataset
from dogo_fed.data.digits_m import digits_m, upscale
from dogo_fed.data.map_style import (
    dataset_from_arrays,
    dataset_from_map_style,
    fingerprint,
    pixel_statistics,
)
from dogo_fed.data.torchvision_sets import read_idx
from dogo_fed.errors import ConfigError, DataError, OwnCodeError, own_failure

DIGITS_M_FINGERPRINT = "84abfc9af7f6616ae79b2ca6ee086149"


def all_images(source):
    return source.images(torch.arange(len(source)))


def random_images(number, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (number, 3, size, size), dtype=torch.uint8, generator=generator)


# ---- components ----


def test_unknown_name_lists_known_names_and_the_nearest():
    with pytest.raises(
        ConfigError,
        match=r"unknown data set 'digit_m'.*cifar100.*did you mean 'digits_m' or 'digits'\?",
    ):
        build_dataset("digit_m", {})


def test_unknown_option_lists_valid_options_and_the_nearest():
    with pytest.raises(ConfigError, match=r"no option 'train_sise'.*test_size.*'train_size'"):
        build_dataset("digits_m", {"train_sise": 10})


def test_missing_option_is_named():
    with pytest.raises(ConfigError, match="'image_folder' needs the option 'root'"):
        build_dataset("image_folder", {})


def test_every_known_name_resolves():
    for name in DATASETS:
        assert callable(components.resolve("data set", name, DATASETS))


def test_module_that_is_missing_is_named_with_its_cause():
    with pytest.raises(ConfigError, match="'no_such_module_here' can't be imported") as caught:
        build_dataset("no_such_module_here:images", {})
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_attribute_that_is_missing_gets_close_matches():
    with pytest.raises(ConfigError, match=r"has no 'digitsm'; did you mean.*'digits_m'"):
        build_dataset("dogo_fed.data.digits_m:digitsm", {})


def test_attribute_that_is_not_callable_is_refused():
    with pytest.raises(ConfigError, match="is a int, which can't be called"):
        build_dataset("dogo_fed.data.digits_m:IMAGE_SIZE", {})


def test_reserved_options_belong_to_the_caller():
    def factory(size, *, depth=1):
        return size, depth

    components.check_options("thing", "x", factory, {"depth": 2}, reserved=("size",))
    with pytest.raises(ConfigError, match="no option 'size'; its options are: depth"):
        components.check_options("thing", "x", factory, {"size": 2}, reserved=("size",))


class Sized:
    def __init__(self, size: int, share: float = 0.5, sort: bool = True, root: str | None = None):
        self.given = (size, share, sort, root)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": "many"}, "option 'size' of thing 'x' must be a whole number, not 'many'"),
        ({"size": 1.5}, "option 'size' of thing 'x' must be a whole number, not 1.5"),
        ({"size": True}, "option 'size' of thing 'x' must be a whole number, not True"),
        ({"size": 1, "share": "half"}, "option 'share' of thing 'x' must be a number, not 'half'"),
        ({"size": 1, "sort": "no"}, "option 'sort' of thing 'x' must be true or false, not 'no'"),
        (
            {"size": 1, "root": 7},
            r"option 'root' of thing 'x' must be a text \(.*\) or null, not 7",
        ),
        ({"size": None}, "option 'size' of thing 'x' must be a whole number, not None"),
    ],
)
def test_a_value_of_another_kind_is_named_before_anything_is_built(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        components.check_options("thing", "x", Sized, options)


def test_a_whole_number_is_a_number_and_null_stands_where_it_may():
    components.check_options("thing", "x", Sized, {"size": 1, "share": 1, "root": None})


def test_hints_that_name_what_is_not_there_check_nothing():
    def factory(size: NoSuchType):  # noqa: F821
        return size

    components.check_options("thing", "x", factory, {"size": "many"})


@pytest.mark.parametrize("is_ours", [True, False])
def test_what_a_component_of_ours_does_not_take_is_a_sentence(is_ours, monkeypatch):
    """Somebody's own component fails with its own traceback, which he needs."""

    def factory(size):
        raise ValueError("size must be even")

    monkeypatch.setitem(sys.modules, "some_things", SimpleNamespace(factory=factory))
    path = "some_things:factory"
    name, known = ("even", {"even": path}) if is_ours else (path, {})
    raised, sentence = OwnCodeError, "'some_things:factory' failed: ValueError: size must be even"
    if is_ours:
        raised, sentence = ConfigError, "'even' can't be made with the options size=3: size must"
    with pytest.raises(raised, match=sentence) as caught:
        components.build("thing", name, known, {"size": 3})
    failure = own_failure(caught.value)
    assert failure is None if is_ours else str(failure) == "size must be even"


def test_factory_that_takes_anything_takes_any_option():
    def factory(**anything):
        return anything

    components.check_options("thing", "x", factory, {"whatever": 1})


def test_component_of_ones_own_gets_its_options(monkeypatch, tmp_path):
    (tmp_path / "my_images.py").write_text(
        "import torch\n"
        "def pair(size):\n"
        "    images = torch.arange(size * 48).reshape(size, 3, 4, 4).to(torch.uint8)\n"
        "    rows = [(image, index % 2) for index, image in enumerate(images)]\n"
        "    return rows, rows[:2]\n"
        "def wrong():\n"
        "    return 3\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    data = build_dataset("my_images:pair", {"size": 6})
    assert (len(data.train), len(data.test), data.num_classes) == (6, 2, 2)
    with pytest.raises(ConfigError, match="returned a int, not a DataSet"):
        build_dataset("my_images:wrong", {})


@pytest.mark.parametrize(
    ("name", "home"),
    [
        ("subprocess:check_output", "subprocess"),
        ("os:system", "posix"),
        ("builtins:exec", "builtins"),
        ("pathlib:Path.home", "pathlib"),
        ("their_code:run", "subprocess"),
        ("their_code:later", "subprocess"),
        ("torch:os.system", "posix"),
    ],
)
def test_what_came_with_python_is_no_component_and_is_not_called(name, home, monkeypatch, tmp_path):
    (tmp_path / "their_code.py").write_text(
        "import functools\nfrom subprocess import run\nlater = functools.partial(run, ['true'])\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for kind in ("data set", "backbone"):
        with pytest.raises(ConfigError, match=rf"standard library \({home}\)"):
            components.resolve(kind, name, {})


@pytest.mark.parametrize(
    ("name", "package", "elsewhere"),
    [
        ("torchvision:torch.hub.load", "torchvision", "torch"),
        ("torchvision.datasets.folder:Image.open", "torchvision", "PIL.Image"),
        ("timm.optim:AdamW", "timm", "torch.optim.adamw"),
        ("their_nets:torch.hub.load", "their_nets", "torch"),
    ],
)
def test_a_name_does_not_lead_from_one_package_into_another(
    name, package, elsewhere, monkeypatch, tmp_path
):
    (tmp_path / "their_nets.py").write_text("import torch\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for kind in ("data set", "backbone"):
        with pytest.raises(ConfigError, match=f"leads out of the package {package} to {elsewhere}"):
            components.resolve(kind, name, {})


def test_what_a_package_defines_and_what_ones_own_code_imports_by_name_is_found(
    monkeypatch, tmp_path
):
    (tmp_path / "borrowed_nets.py").write_text("from torchvision.models import resnet18\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in ("borrowed_nets:resnet18", "torchvision:models.resnet18"):
        found = components.resolve("backbone", name, {})
        assert found is torchvision.models.resnet18
    assert components.resolve("data set", "torchvision:datasets.FakeData", {}) is (
        torchvision.datasets.FakeData
    )


def test_a_module_of_ones_own_may_be_called_like_one_of_pythons(monkeypatch, tmp_path):
    (tmp_path / "antigravity.py").write_text("def load():\n    return 3\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "antigravity", raising=False)
    assert components.resolve("thing", "antigravity:load", {})() == 3
    del sys.modules["antigravity"]


TYPED = """
from __future__ import annotations
import pathlib
from typing import Any, NamedTuple, Protocol
from dogo_fed.data.source import DataSet

def called(*anything):
    pathlib.Path(__file__).with_suffix(".called").touch()

class Images:
    def __init__(self): called()
class Pair(NamedTuple):
    train: list
    test: list
class Told(Protocol):
    pass
def text() -> str: called()
def nothing() -> None: called()
def listed() -> list[DataSet]: called()
def either() -> str | int: called()

def unknown(): called()
def anything() -> Any: called()
def misspelt() -> Dataset: called()
def whole() -> DataSet: called()
def maybe() -> DataSet | None: called()
def pair() -> tuple[Any, Any]: called()
def named() -> Pair: called()
def told() -> Told: called()
"""


@pytest.mark.parametrize("name", ["Images", "text", "nothing", "listed", "either"])
def test_what_says_that_it_gives_no_data_is_not_called(name, monkeypatch, tmp_path):
    typed = tmp_path / "typed_loaders.py"
    typed.write_text(TYPED)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "typed_loaders", raising=False)
    with pytest.raises(ConfigError, match=rf"typed_loaders:{name}' would return .* is not called"):
        build_dataset(f"typed_loaders:{name}", {})
    assert not typed.with_suffix(".called").exists()


@pytest.mark.parametrize(
    "name", ["unknown", "anything", "misspelt", "whole", "maybe", "pair", "named", "told"]
)
def test_what_may_give_data_is_called(name, monkeypatch, tmp_path):
    typed = tmp_path / "typed_loaders.py"
    typed.write_text(TYPED)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "typed_loaders", raising=False)
    with pytest.raises(ConfigError, match="returned a NoneType"):
        build_dataset(f"typed_loaders:{name}", {})
    assert typed.with_suffix(".called").exists()


# ---- digits_m ----


@pytest.fixture(scope="module")
def digits():
    return digits_m()


def test_digits_m_has_the_published_bytes(digits):
    assert digits.fingerprint == DIGITS_M_FINGERPRINT
    assert digits.mean == (0.4007, 0.3718, 0.3608)
    assert digits.std == (0.3083, 0.2612, 0.2778)


def test_digits_m_shapes_and_balance(digits):
    assert all_images(digits.train).shape == (8000, 3, 32, 32)
    assert all_images(digits.test).shape == (2000, 3, 32, 32)
    for source in (digits.train, digits.test):
        share = source.labels.bincount(minlength=10) / len(source)
        assert share.min() > 0.09 and share.max() < 0.11


def test_digits_m_seed_and_sizes_change_it():
    small = digits_m(train_size=50, test_size=20)
    assert (len(small.train), len(small.test)) == (50, 20)
    assert digits_m(50, 20).fingerprint == small.fingerprint
    assert digits_m(50, 20, seed=1).fingerprint != small.fingerprint
    with pytest.raises(ConfigError, match="at least 1"):
        digits_m(train_size=0)


@pytest.mark.parametrize("side", [24, 27, 32])
def test_upscale_agrees_with_torch(side):
    digit = np.random.default_rng(0).integers(0, 17, (2, 8, 8))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(digit).double()[None], size=(side, side), mode="bilinear"
    )
    difference = expected[0] * 255 / 16 - torch.from_numpy(upscale(digit, side))
    assert difference.min() > -1e-9 and difference.max() < 1


def test_upscale_keeps_black_and_white():
    digit = np.zeros((1, 8, 8), dtype=np.int64)
    assert upscale(digit, 29).max() == 0
    assert (upscale(digit + 16, 29) == 255).all()


# ---- from arrays and map-style data sets ----


def test_statistics_match_the_floating_point_ones():
    images = random_images(50)
    mean, std = pixel_statistics(images)
    scaled = images.double() / 255
    assert mean == pytest.approx(scaled.mean((0, 2, 3)).tolist(), abs=5e-5)
    assert std == pytest.approx(scaled.std((0, 2, 3), correction=0).tolist(), abs=5e-5)


def test_constant_images_can_be_normalised():
    assert pixel_statistics(torch.full((2, 3, 4, 4), 255, dtype=torch.uint8))[1] == (1.0, 1.0, 1.0)


def test_fingerprint_depends_on_order_and_shape():
    images = random_images(4)
    assert fingerprint(images) == fingerprint(images.clone())
    assert fingerprint(images) != fingerprint(images.flip(0))
    assert fingerprint(images) != fingerprint(images.reshape(2, 6, 8, 8))


def test_dataset_from_arrays_takes_numpy_and_keeps_missing_labels():
    data = dataset_from_arrays(
        "mine", random_images(4).numpy(), [0, 2, -1, 1], random_images(2), [1, 0]
    )
    assert data.train.labels.tolist() == [0, 2, -1, 1]
    assert (data.num_classes, data.image_size) == (3, 8)


@pytest.mark.parametrize(
    ("train", "labels", "sentence"),
    [
        (torch.zeros(4, 3, 8, 8), [0] * 4, "train images must be uint8"),
        (torch.zeros(4, 3, 8, 6, dtype=torch.uint8), [0] * 4, "with H = W"),
        (random_images(4, size=6), [0] * 4, r"train images are \(3, 6, 6\) but test"),
        (random_images(0), [], "there are none"),
        (random_images(4), [0] * 3, "train labels must be 4 integers"),
        (random_images(4), [0.5] * 4, "train labels must be 4 integers"),
        (random_images(4), [0, 0, 0, -2], "not -2"),
        (random_images(4), [0, 0, 0, 5], "a label is 5, but there are only 3 classes"),
    ],
)
def test_dataset_from_arrays_says_what_is_wrong(train, labels, sentence):
    with pytest.raises(DataError, match=sentence):
        dataset_from_arrays("mine", train, labels, random_images(2), [0, 1], num_classes=3)


def test_map_style_kinds_of_images_agree():
    image = random_images(1)[0]
    as_array = image.permute(1, 2, 0).numpy()
    kinds = [image, image / 255, as_array, Image.fromarray(as_array)]
    data = dataset_from_map_style("mine", [(kind, 0) for kind in kinds], [(image, torch.tensor(1))])
    assert (all_images(data.train) == image).all()
    assert data.test.labels.tolist() == [1]


def test_map_style_grey_becomes_three_channels():
    grey = np.arange(16, dtype=np.uint8).reshape(4, 4)
    data = dataset_from_map_style("mine", [(grey, 0)], [(grey, 1)])
    assert (all_images(data.train) == torch.from_numpy(grey)).all()


def test_map_style_images_of_pillow_are_turned_as_their_exif_says(tmp_path):
    stored = np.zeros((4, 4, 3), np.uint8)
    stored[:, :2] = 250  # left as stored, the top as seen
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as opened:
        data = dataset_from_map_style("mine", [opened])
    image_CHW = all_images(data.train)[0]
    assert (image_CHW[:, :2] == 250).all() and (image_CHW[:, 2:] == 0).all()


def test_map_style_images_may_have_no_class():
    image = random_images(1)[0]
    data = dataset_from_map_style("mine", [(image, None), (image, -1), (image, 2)])
    assert data.train.labels.tolist() == [-1, -1, 2]


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        ("image", "item 1 is a str"),
        ((torch.full((3, 8, 8), torch.nan), 0), "item 1: 192 of its values are NaN"),
        ((None, 0), "item 1 is a NoneType"),
        ((random_images(1)[0], "cat"), "item 1 has the class 'cat'"),
        ((random_images(1), 0), "item 1 has shape"),
        ((random_images(1, size=6)[0], 0), r"item 1 has shape \(3, 6, 6\), but item 0"),
        ((random_images(1)[0] / 64 - 1, 0), "item 1 has values from"),
        ((random_images(1)[0].long(), 0), "item 1 is torch.int64"),
    ],
)
def test_map_style_says_which_item_is_wrong(item, sentence):
    good = (random_images(1)[0], 0)
    with pytest.raises(DataError, match=sentence):
        dataset_from_map_style("mine", [good, item], [good])


def test_map_style_empty_is_refused():
    with pytest.raises(DataError, match="train: the data set is empty"):
        dataset_from_map_style("mine", [], [])


# ---- CIFAR, STL-10, FashionMNIST ----


class OldDtype:
    """Pickles as numpy's uint8 dtype was pickled when CIFAR was published."""

    def __reduce__(self):
        return np.dtype, ("u1", 0, 1)


def write_cifar10(root: Path, monkeypatch) -> torch.Tensor:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    source = torchvision.datasets.CIFAR10
    images = random_images(12, size=32)

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    def batch(start):
        rows = images[start : start + 2].reshape(2, -1).numpy()
        return {"data": rows, "labels": [start % 10, 1], "written_with": OldDtype()}

    files = [f"data_batch_{number}" for number in range(1, 6)]
    train = [[name, write(name, batch(2 * place))] for place, name in enumerate(files)]
    test = [["test_batch", write("test_batch", batch(10))]]
    names = {"label_names": [str(number) for number in range(10)]}
    meta = {**source.meta, "md5": write("batches.meta", names)}
    for attribute, value in (("train_list", train), ("test_list", test), ("meta", meta)):
        monkeypatch.setattr(source, attribute, value)
    return images


def test_cifar10_reads_the_pickled_layout(tmp_path, monkeypatch):
    images = write_cifar10(tmp_path, monkeypatch)
    data = build_dataset("cifar10", {"root": str(tmp_path)})
    assert torch.equal(all_images(data.train), images[:10])
    assert torch.equal(all_images(data.test), images[10:])
    assert data.train.labels.tolist() == [0, 1, 2, 1, 4, 1, 6, 1, 8, 1]


def test_cifar10_with_a_damaged_file_is_refused(tmp_path, monkeypatch):
    write_cifar10(tmp_path, monkeypatch)
    with (tmp_path / "cifar-10-batches-py" / "data_batch_3").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(DataError, match="not found or corrupted"):
        build_dataset("cifar10", {"root": str(tmp_path)})


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "stl10", "fashion_mnist"])
def test_missing_files_name_the_folder_and_the_option(name, tmp_path):
    with pytest.raises(DataError) as caught:
        build_dataset(name, {"root": str(tmp_path)})
    message = str(caught.value)
    assert message.startswith(f"{name} was not found in {tmp_path}")
    assert "data.options.download=true" in message


def test_failed_download_says_so(tmp_path, monkeypatch):
    def no_network(self):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets.CIFAR100, "download", no_network)
    with pytest.raises(DataError, match=r"download failed \(OSError: no route to host\)"):
        build_dataset("cifar100", {"root": str(tmp_path), "download": True})


def write_stl10(root: Path, monkeypatch) -> dict[str, torch.Tensor]:
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    parts = {
        name: random_images(3, 96, seed) for seed, name in enumerate(("train", "test", "unlabeled"))
    }
    for name, images in parts.items():
        images.transpose(2, 3).contiguous().numpy().tofile(folder / f"{name}_X.bin")
        np.array([1, 10, 2], dtype=np.uint8).tofile(folder / f"{name}_y.bin")

    def listed(*names):
        return [[name, hashlib.md5((folder / name).read_bytes()).hexdigest()] for name in names]

    source = torchvision.datasets.STL10
    monkeypatch.setattr(
        source, "train_list", listed("train_X.bin", "train_y.bin", "unlabeled_X.bin")
    )
    monkeypatch.setattr(source, "test_list", listed("test_X.bin", "test_y.bin"))
    return parts


def test_stl10_reads_the_binary_layout(tmp_path, monkeypatch):
    parts = write_stl10(tmp_path, monkeypatch)
    data = build_dataset("stl10", {"root": str(tmp_path)})
    assert torch.equal(all_images(data.train), parts["train"])
    assert torch.equal(all_images(data.test), parts["test"])
    assert data.test.labels.tolist() == [0, 9, 1]


def test_stl10_unlabeled_images_come_last_without_labels(tmp_path, monkeypatch):
    parts = write_stl10(tmp_path, monkeypatch)
    data = build_dataset("stl10", {"root": str(tmp_path), "unlabeled": True})
    assert torch.equal(all_images(data.train), torch.cat([parts["train"], parts["unlabeled"]]))
    assert data.train.labels.tolist() == [0, 9, 1, -1, -1, -1]
    assert data.num_classes == 10


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


@pytest.mark.parametrize("below", ["FashionMNIST/raw", "."])
@pytest.mark.parametrize("zipped", [True, False])
def test_fashion_mnist_reads_idx_files(tmp_path, below, zipped):
    folder = tmp_path / below
    folder.mkdir(parents=True, exist_ok=True)
    images = random_images(4, size=28)[:, 0].numpy()
    for part in ("train", "t10k"):
        for name, array in (("images-idx3", images), ("labels-idx1", np.array([0, 9, 3, 1]))):
            content = idx_bytes(array)
            path = folder / f"{part}-{name}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(content) if zipped else content)
    data = build_dataset("fashion_mnist", {"root": str(tmp_path)})
    found = all_images(data.train)
    assert found.shape == (4, 3, 32, 32)
    assert (found[:, :, 2:-2, 2:-2] == torch.from_numpy(images)[:, None]).all()
    assert found[:, :, :2].max() == 0 and found[:, :, :, -2:].max() == 0
    assert data.train.labels.tolist() == [0, 9, 3, 1]


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0\x08\x01\0\0\0\x05abc", b"\0\0\x0d\x01\0\0\0\x01a", b"\0\0\x08\x02\0\0\0\x01"],
)
def test_idx_files_that_are_cut_short_are_refused(tmp_path, content):
    path = tmp_path / "broken-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError, match="broken-ubyte is not an idx file"):
        read_idx(path)


def test_idx_file_with_a_damaged_archive_is_refused(tmp_path):
    path = tmp_path / "broken-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.arange(100)))[:-20])
    with pytest.raises(DataError, match="can't be read"):
        read_idx(path)


# ---- synthetic ----


def test_synthetic_is_deterministic_and_learnable():
    data = build_dataset("synthetic", {"size": 64, "test_size": 32, "num_classes": 6, "seed": 3})
    again = build_dataset("synthetic", {"size": 64, "test_size": 32, "num_classes": 6, "seed": 3})
    assert data.fingerprint == again.fingerprint
    assert (len(data.train), len(data.test), data.num_classes, data.image_size) == (64, 32, 6, 16)
    # Neighbours in the amplitudes of the Fourier transform, which do not see where stripes start.
    train, test = (
        torch.fft.rfft2(all_images(part).float().mean(1)).abs().flatten(1)[:, 1:]
        for part in (data.train, data.test)
    )
    nearest = torch.cdist(test, train).argmin(1)
    assert (data.train.labels[nearest] == data.test.labels).float().mean() > 0.9


def test_synthetic_refuses_impossible_sizes():
    with pytest.raises(ConfigError, match="num_classes of at least 2"):
        build_dataset("synthetic", {"num_classes": 1})
