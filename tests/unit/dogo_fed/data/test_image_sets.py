"""Sets that come as image files, each on a small copy of its real layout; and imbalanced ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dogo_fed.data.datasets import build_dataset
from dogo_fed.data.imbalanced import class_counts
from dogo_fed.errors import ConfigError, DataError

SIZE = 8
DOG, CAT, BIRD = "n02084071", "n02121808", "n01503061"
SORTED = [BIRD, DOG, CAT]
"""Labels 0, 1, 2."""


def brightness(source):
    """Returns one number per image, which tells the images made by `draw` apart."""
    return source.images(torch.arange(len(source))).float().mean((1, 2, 3)).round().int().tolist()


def draw(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = np.full((SIZE, SIZE, 3), value, dtype=np.uint8)
    Image.fromarray(grey).save(path, format="PNG")  # lossless; decoders look at the content


def the_error(build):
    with pytest.raises(DataError) as caught:
        build()
    return str(caught.value)


# ---- Tiny-ImageNet ----


@pytest.fixture
def tiny(tmp_path):
    """wnids.txt is in no order, as in the distribution; image values are 10 * label + number."""
    root = tmp_path / "tiny-imagenet-200"
    for label, wnid in enumerate(SORTED):
        for number in range(2):
            draw(root / f"train/{wnid}/images/{wnid}_{number}.JPEG", 10 * label + number)
        (root / f"train/{wnid}/{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t3\t3\n")
        draw(root / f"val/images/val_{label}.JPEG", 100 + label)
        draw(root / f"test/images/test_{label}.JPEG", 200)
    (root / "wnids.txt").write_text(f"{CAT}\n{BIRD}\n{DOG}\n")
    (root / "words.txt").write_text(f"{CAT}\tcat\n")
    lines = [f"val_{label}.JPEG\t{wnid}\t0\t0\t3\t3\n" for label, wnid in enumerate(SORTED)]
    (root / "val/val_annotations.txt").write_text("".join(reversed(lines)))
    return root


def load_tiny(root):
    return build_dataset("tiny_imagenet", {"root": str(root), "image_size": SIZE})


def test_tiny_imagenet_order_and_labels(tiny):
    for root in (tiny, tiny.parent):
        data = load_tiny(root)
        assert brightness(data.train) == [0, 1, 10, 11, 20, 21]
        assert data.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
        assert brightness(data.test) == [100, 101, 102]
        assert data.test.labels.tolist() == [0, 1, 2]
        assert (data.name, data.num_classes, data.image_size) == ("tiny_imagenet", 3, SIZE)


def test_tiny_imagenet_labels_do_not_depend_on_the_order_of_wnids(tiny):
    before = load_tiny(tiny)
    (tiny / "wnids.txt").write_text("\n".join(SORTED))
    after = load_tiny(tiny)
    assert before.train.labels.tolist() == after.train.labels.tolist()
    assert before.fingerprint == after.fingerprint


def test_tiny_imagenet_has_64_pixels_unless_told(tiny):
    assert build_dataset("tiny_imagenet", {"root": str(tiny)}).image_size == 64


def replace(path: Path, old: str, new: str) -> None:
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))


def remove_folder(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


ANNOTATIONS = "val/val_annotations.txt"
TINY_MISTAKES = {
    "no wnids": (lambda root: (root / "wnids.txt").unlink(), "wnids.txt can't be read"),
    "no wnid at all": (lambda root: (root / "wnids.txt").write_text("\n"), "wnids.txt is empty"),
    "no such wnid": (lambda root: replace(root / "wnids.txt", DOG, "dog"), "'dog' is no wnid"),
    "wnid twice": (lambda root: replace(root / "wnids.txt", DOG, CAT), f"lists {CAT} twice"),
    "wnid left out": (
        lambda root: replace(root / "wnids.txt", DOG + "\n", ""),
        f"train/{DOG} is of no class",
    ),
    "wnid without images": (
        lambda root: replace(root / "wnids.txt", DOG, DOG + "\nn00000001"),
        "train/n00000001/images is missing",
    ),
    "class empty": (
        lambda root: [one.unlink() for one in (root / f"train/{DOG}/images").iterdir()],
        f"train/{DOG}/images has no images",
    ),
    "no annotations": (lambda root: (root / ANNOTATIONS).unlink(), "val_annotations.txt can't be"),
    "annotations empty": (
        lambda root: (root / ANNOTATIONS).write_text(""),
        "val_annotations.txt is empty",
    ),
    "annotations not text": (
        lambda root: (root / ANNOTATIONS).write_bytes(b"\xff\xfe\x00"),
        "val_annotations.txt can't be read",
    ),
    "unknown wnid": (
        lambda root: replace(root / ANNOTATIONS, DOG, "n00000001"),
        "val_annotations.txt, line 2: unknown wnid 'n00000001'",
    ),
    "half a line": (
        lambda root: replace(root / ANNOTATIONS, f"\t{DOG}\t0\t0\t3\t3", ""),
        "line 2: expected an image and its class, not 'val_1.JPEG'",
    ),
    "image twice": (
        lambda root: replace(root / ANNOTATIONS, "val_1", "val_2"),
        "line 2: 'val_2.JPEG' was listed before, in ",
    ),
    "image missing": (
        lambda root: (root / "val/images/val_1.JPEG").unlink(),
        "line 2: the image ",
    ),
    "image outside": (
        lambda root: replace(root / ANNOTATIONS, "val_1", "../../wnids"),
        "line 2: '../../wnids.JPEG' is not a path below",
    ),
    "image not annotated": (
        lambda root: draw(root / "val/images/val_9.JPEG", 0),
        "val_9.JPEG has no line in ",
    ),
    "image broken": (
        lambda root: (root / f"train/{CAT}/images/{CAT}_1.JPEG").write_bytes(b"no"),
        f"train/{CAT}/images/{CAT}_1.JPEG: it is no image",
    ),
    "no val": (lambda root: remove_folder(root / "val/images"), "there is no folder"),
}


@pytest.mark.parametrize("mistake", TINY_MISTAKES)
def test_tiny_imagenet_names_what_is_wrong(tiny, mistake):
    make, says = TINY_MISTAKES[mistake]
    make(tiny)
    assert says in the_error(lambda: load_tiny(tiny))


def test_tiny_imagenet_elsewhere_says_what_to_set(tmp_path):
    message = the_error(lambda: load_tiny(tmp_path / "nowhere"))
    assert "data.options.root" in message and "nowhere/wnids.txt" in message


# ---- ImageNet ----


@pytest.fixture
def imagenet(tmp_path):
    for label, wnid in enumerate(SORTED):
        for number in range(2):
            draw(tmp_path / f"train/{wnid}/{wnid}_{number}.JPEG", 10 * label + number)
    return tmp_path


def add_val(root: Path, flat: bool) -> None:
    for label, wnid in enumerate(SORTED):
        name = f"ILSVRC2012_val_0000000{9 - label}.JPEG"
        draw(root / "val" / (name if flat else f"{wnid}/{name}"), 100 + label)


def load_imagenet(root, **options):
    return build_dataset("imagenet", {"root": str(root), "image_size": SIZE, **options})


def test_imagenet_with_class_folders(imagenet):
    add_val(imagenet, flat=False)
    data = load_imagenet(imagenet)
    assert brightness(data.train) == [0, 1, 10, 11, 20, 21]
    assert data.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert (brightness(data.test), data.test.labels.tolist()) == ([100, 101, 102], [0, 1, 2])
    assert data.num_classes == 3


def test_what_imagenet_leaves_out_is_counted(imagenet):
    add_val(imagenet, flat=False)
    draw(imagenet / f"train/{CAT}/more/a.JPEG", 1)
    (imagenet / f"train/{CAT}/read.txt").write_text("x")
    (imagenet / f"val/{CAT}/read.txt").write_text("x")
    assert load_imagenet(imagenet).notes == (
        "left out: folders in class folders (1), no image: .txt (2)",
    )


def test_what_tiny_imagenet_leaves_out_is_counted(tiny):
    assert load_tiny(tiny).notes == ()
    (tiny / "val/images/read.me").write_text("x")
    (tiny / f"train/{CAT}/images/more").mkdir()
    assert load_tiny(tiny).notes == ("left out: folders in class folders (1), no image: .me (1)",)


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("val_annotations.txt", "ILSVRC2012_val_0000000{number}.JPEG {wnid}"),
        ("val/val_annotations.txt", "ILSVRC2012_val_0000000{number}.JPEG\t{wnid}\t0\t0\t3\t3"),
        ("val.txt", "ILSVRC2012_val_0000000{number}.JPEG {label}"),
        ("LOC_val_solution.csv", "ILSVRC2012_val_0000000{number},{wnid} 1 2 3 4 {wnid} 1 2 3 4"),
        ("elsewhere.txt", "ILSVRC2012_val_0000000{number}.JPEG {wnid}"),
    ],
)
def test_imagenet_with_a_flat_val(imagenet, place, line):
    add_val(imagenet, flat=True)
    lines = [
        line.format(number=9 - label, wnid=wnid, label=label) for label, wnid in enumerate(SORTED)
    ]
    header = ["ImageId,PredictionString"] if place.endswith("csv") else []
    (imagenet / place).write_text("\n".join(header + lines))
    named = {"val_annotations": str(imagenet / place)} if place == "elsewhere.txt" else {}
    data = load_imagenet(imagenet, **named)
    assert data.notes == ()  # the list is used, and so not left out
    assert brightness(data.test) == [102, 101, 100]  # by file name
    assert data.test.labels.tolist() == [2, 1, 0]


def test_imagenet_without_annotations_says_where_they_are_looked_for(imagenet):
    add_val(imagenet, flat=True)
    message = the_error(lambda: load_imagenet(imagenet))
    assert "LOC_val_solution.csv" in message and "data.options.val_annotations" in message


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("490", "line 1: expected an image and its class, not '490'"),
        ("ILSVRC2012_val_00000009.JPEG 3", "line 1: the label is 3, but there are only 3 classes"),
        ("ILSVRC2012_val_00000009.JPEG n00000001", "line 1: unknown wnid 'n00000001'"),
        ("ILSVRC2012_val_00000001.JPEG 0", "ILSVRC2012_val_00000001.JPEG can't be found"),
        ("ILSVRC2012_val_00000009.JPEG 0", "ILSVRC2012_val_00000007.JPEG has no line in"),
    ],
)
def test_imagenet_names_a_wrong_annotation(imagenet, line, says):
    add_val(imagenet, flat=True)
    (imagenet / "val.txt").write_text(line)
    assert says in the_error(lambda: load_imagenet(imagenet))


def test_imagenet_names_folders_that_are_wrong(imagenet):
    assert "there is no folder" in the_error(lambda: load_imagenet(imagenet))
    add_val(imagenet, flat=False)
    draw(imagenet / "val/n00000001/0.JPEG", 0)
    assert "has the class 'n00000001'" in the_error(lambda: load_imagenet(imagenet))
    (imagenet / "train/n00000001").mkdir()
    assert "train/n00000001 has no images" in the_error(lambda: load_imagenet(imagenet))
    (imagenet / "train/dog").mkdir()
    assert "'dog' is no wnid" in the_error(lambda: load_imagenet(imagenet))


def test_imagenet_names_a_broken_image(imagenet):
    add_val(imagenet, flat=False)
    path = imagenet / f"train/{DOG}/{DOG}_0.JPEG"
    path.write_bytes(path.read_bytes()[:40])
    assert f"{path}: it is no image that can be read" in the_error(lambda: load_imagenet(imagenet))


# ---- lists, as DomainNet has them ----


@pytest.fixture
def sketches(tmp_path):
    """Lists in no order; image values are 10 * label + number."""
    for label, name in enumerate(("aircraft_carrier", "alarm clock")):
        for number in range(3):
            draw(tmp_path / f"sketch/{name}/s_{number}.jpg", 10 * label + number)
    (tmp_path / "sketch_train.txt").write_text(
        "sketch/alarm clock/s_1.jpg 1\nsketch/aircraft_carrier/s_0.jpg 0\n\n"
        "sketch/alarm clock/s_0.jpg 1\n"
    )
    (tmp_path / "sketch_test.txt").write_text(
        "sketch/aircraft_carrier/s_2.jpg 0\nsketch/alarm clock/s_2.jpg 1\n"
    )
    return tmp_path


def load_sketches(root, **options):
    given = {"root": str(root), "domain": "sketch", "image_size": SIZE, "num_classes": 2}
    return build_dataset("domainnet", {**given, **options})


def test_lists_order_and_labels(sketches):
    data = load_sketches(sketches)
    assert (brightness(data.train), data.train.labels.tolist()) == ([11, 0, 10], [1, 0, 1])
    assert (brightness(data.test), data.test.labels.tolist()) == ([2, 12], [0, 1])
    assert (data.name, data.num_classes) == ("domainnet-sketch", 2)


def test_number_of_classes_is_domainnets_or_counted(sketches):
    options = {"root": str(sketches), "domain": "sketch", "image_size": SIZE}
    assert build_dataset("domainnet", options).num_classes == 345
    assert load_sketches(sketches, num_classes=None).num_classes == 2
    with pytest.raises(ConfigError, match="num_classes must be at least 1"):
        load_sketches(sketches, num_classes=0)


TRAIN_LIST = "sketch_train.txt"
LIST_MISTAKES = {
    "no list": (lambda root: (root / TRAIN_LIST).unlink(), "there is no list"),
    "empty list": (lambda root: (root / TRAIN_LIST).write_text("\n"), "sketch_train.txt is empty"),
    "no label": (
        lambda root: replace(root / TRAIN_LIST, "sketch/aircraft_carrier/s_0.jpg 0", "sketch"),
        "sketch_train.txt, line 2: expected an image and its class, not 'sketch'",
    ),
    "label too large": (
        lambda root: replace(root / TRAIN_LIST, "s_0.jpg 0", "s_0.jpg 2"),
        "sketch_train.txt, line 2: the label is 2, but there are only 2 classes",
    ),
    "label negative": (
        lambda root: replace(root / TRAIN_LIST, "s_0.jpg 0", "s_0.jpg -1"),
        "line 2: the label must be a whole number from 0, not '-1'",
    ),
    "label no number": (
        lambda root: replace(root / TRAIN_LIST, "s_0.jpg 0", "s_0.jpg x"),
        "line 2: the label must be a whole number from 0, not 'x'",
    ),
    "image missing": (
        lambda root: (root / "sketch/alarm clock/s_0.jpg").unlink(),
        "sketch_train.txt, line 4: the image ",
    ),
    "image twice": (
        lambda root: replace(root / TRAIN_LIST, "alarm clock/s_0", "alarm clock/s_1"),
        "line 4: 'sketch/alarm clock/s_1.jpg' was listed before, in ",
    ),
    "image in both": (
        lambda root: replace(root / TRAIN_LIST, "alarm clock/s_0", "alarm clock/s_2"),
        "s_2.jpg is both in sketch_train.txt and in sketch_test.txt",
    ),
    "image outside": (
        lambda root: replace(root / TRAIN_LIST, "sketch/aircraft", "/sketch/aircraft"),
        "line 2: '/sketch/aircraft_carrier/s_0.jpg' is not a path below",
    ),
    "image broken": (
        lambda root: (root / "sketch/alarm clock/s_0.jpg").write_text("no"),
        "sketch/alarm clock/s_0.jpg: it is no image",
    ),
}


@pytest.mark.parametrize("mistake", LIST_MISTAKES)
def test_lists_name_what_is_wrong(sketches, mistake):
    make, says = LIST_MISTAKES[mistake]
    make(sketches)
    assert says in the_error(lambda: load_sketches(sketches))


def test_a_domain_that_is_not_there_lists_those_that_are(sketches):
    message = the_error(lambda: load_sketches(sketches, domain="clipart"))
    assert "clipart_train.txt" in message and "sketch_train.txt" in message


# ---- what all of them take ----


def test_sets_of_files_take_the_options_of_pixels(tiny, sketches, imagenet):
    add_val(imagenet, flat=False)
    for name, options in (
        ("tiny_imagenet", {"root": str(tiny)}),
        ("imagenet", {"root": str(imagenet)}),
        ("domainnet", {"root": str(sketches), "domain": "sketch"}),
    ):
        given = {**options, "image_size": SIZE}
        data = build_dataset(name, {**given, "channels": 1, "ground": "black"})
        assert data.train.images(torch.tensor([0])).shape == (1, 1, SIZE, SIZE)
        with pytest.raises(DataError, match=r"data\.options\.max_megapixels=1e-05"):
            build_dataset(name, {**given, "max_megapixels": 1e-5})


def test_a_broken_image_can_be_left_out(imagenet):
    add_val(imagenet, flat=False)
    (imagenet / f"train/{DOG}/{DOG}_0.JPEG").write_bytes(b"no")
    assert brightness(load_imagenet(imagenet, skip_broken=True).train) == [0, 1, 11, 20, 21]


# ---- imbalanced ----


def test_class_counts_of_the_published_set():
    counts = class_counts(10, 0.2, 5000, 250)
    assert counts == [5000, 858, 557, 439, 375, 333, 304, 282, 264, 250]


@pytest.mark.parametrize("gamma", [0.2, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_class_counts_fall_between_their_ends_by_a_power_law(gamma, num_classes):
    counts = class_counts(num_classes, gamma, 5000, 250)
    assert (counts[0], counts[-1]) == (5000, 250)
    assert sorted(counts, reverse=True) == counts
    # 1 / n_c is linear in c ** gamma
    inverse = np.array([1 / count for count in counts])
    line = np.interp(
        np.arange(1, num_classes + 1) ** gamma, [1, num_classes**gamma], [1 / 5000, 1 / 250]
    )
    assert inverse == pytest.approx(line, rel=0.5 / 250 * 1.01)


def test_a_larger_gamma_falls_more_slowly_at_first():
    second = [class_counts(10, gamma, 5000, 250)[1] for gamma in (0.2, 1.0, 2.0)]
    assert second == sorted(second) and len(set(second)) == 3


def imbalanced(**options):
    base = {"size": 80, "test_size": 8, "image_size": 8, "num_classes": 4}
    given = {"base": "synthetic", "base_options": base, "largest": 20, "smallest": 5}
    return build_dataset("imbalanced", {**given, **options})


def test_what_is_wrong_with_the_other_data_set_names_its_own_options(tmp_path):
    (tmp_path / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"data\.options\.base_options\.skip_broken=true"):
        imbalanced(base="image_folder", base_options={"root": str(tmp_path)})


def test_imbalanced_keeps_the_first_images_of_every_class_in_order():
    data = imbalanced()
    base = build_dataset(
        "synthetic", {"size": 80, "test_size": 8, "image_size": 8, "num_classes": 4}
    )
    counts = class_counts(4, 0.2, 20, 5)
    assert data.train.labels.bincount().tolist() == counts
    labels = base.train.labels
    kept = [
        place
        for place, label in enumerate(labels.tolist())
        if int((labels[:place] == label).sum()) < counts[label]
    ]
    assert torch.equal(
        data.train.images(torch.arange(len(data.train))), base.train.images(torch.tensor(kept))
    )
    assert torch.equal(data.test.images(torch.arange(8)), base.test.images(torch.arange(8)))
    assert (data.name, data.num_classes) == ("synthetic_imbalanced", 4)
    assert data.fingerprint not in (base.fingerprint, imbalanced(smallest=6).fingerprint)
    assert data.fingerprint == imbalanced().fingerprint


@pytest.mark.parametrize(
    "options", [{"gamma": 0.0}, {"smallest": 0}, {"smallest": 20}, {"gamma": float("nan")}]
)
def test_imbalanced_refuses_impossible_numbers(options):
    with pytest.raises(ConfigError, match="1 <= smallest < largest"):
        imbalanced(**options)


def test_imbalanced_refuses_more_images_than_there_are():
    message = the_error(lambda: imbalanced(largest=21))
    assert "21 images of label 0 are asked for, but synthetic has 20" in message


def test_imbalanced_passes_on_what_its_base_has_noted(tmp_path):
    for place, number in (("cat", 3), ("dog", 2)):
        for index in range(number):
            draw(tmp_path / place / f"{index}.png", index)
    (tmp_path / "cat" / "notes.txt").write_text("x")
    options = {"root": str(tmp_path), "image_size": SIZE}
    data = imbalanced(base="image_folder", base_options=options, largest=3, smallest=2)
    assert data.notes[-1] == "left out: no image: .txt (1)"


def test_imbalanced_checks_the_options_of_its_base():
    with pytest.raises(ConfigError, match="no option 'large'"):
        imbalanced(base_options={"large": 3})
