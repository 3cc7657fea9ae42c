"""Folders of images as people have them: what is found, what is left out, and what is said."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError

from dogo_fed.config import PartitionConfig, PartitionKind
from dogo_fed.data.files import listing
from dogo_fed.data.files.listing import suffixes
from dogo_fed.data.map_style import fingerprint
from dogo_fed.data.partition import cut
from dogo_fed.errors import ConfigError, DataError
from tests.support.image_folders import (
    all_images,
    draw,
    levels,
    load_folder,
    write_folder,
)


def said(data):
    return "\n".join(data.notes)


# ---- with train/ and test/ ----


@pytest.mark.parametrize("tests", ["test", "val", "valid", "validation", "Test", "VAL"])
def test_order_and_labels(tmp_path, tests):
    images = write_folder(tmp_path, tests=tests)
    data = load_folder(tmp_path)
    assert torch.equal(all_images(data.train), images[:4])
    assert torch.equal(all_images(data.test), images[4:])
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    assert data.test.labels.tolist() == [0, 1]
    assert (data.num_classes, data.image_size) == (2, 8)
    assert data.class_names == ("cat", "dog")
    assert data.fingerprint == fingerprint(images[:4])
    assert data.notes == ()


def test_people_read_the_folders_own_name_and_streams_are_named_as_ever(tmp_path, monkeypatch):
    photos = tmp_path / "my photos (2024)"
    write_folder(photos)
    monkeypatch.chdir(photos)
    for root in (photos, f"{photos}/", "."):
        data = load_folder(root)
        assert (data.name, data.title) == ("image_folder", "my photos (2024)")
    how = PartitionConfig(kind=PartitionKind.IID, anchors=0.5, least_images=1)
    part = cut(data, ["a"], how, 0).anchors
    assert (part.name, part.title) == ("image_folder:anchors", "my photos (2024):anchors")


def test_a_folder_may_be_called_what_can_not_be_printed(tmp_path):
    write_folder(tmp_path / "red\x1b[31m")
    assert load_folder(tmp_path / "red\x1b[31m").title == r"red\x1b[31m"


@pytest.mark.parametrize(
    ("train", "tests"),
    [
        ("train_images", "test_images"),
        ("training_set", "test_set"),
        ("train2017", "val2017"),
        ("seg_train", "seg_test"),
        ("train", "test images"),
        ("Training Data", "validation"),
    ],
)
@pytest.mark.parametrize("labels", ["folders", "none"])
def test_parts_that_have_more_in_their_names_are_no_classes(tmp_path, train, tests, labels):
    """Else the test images would be trained with, and the accuracy be that of telling the two apart."""
    images = write_folder(tmp_path, tests=tests)
    (tmp_path / "train").rename(tmp_path / train)
    data = load_folder(tmp_path, labels=labels)
    assert torch.equal(all_images(data.train), images[:4])
    assert torch.equal(all_images(data.test), images[4:])
    taken = [name for name in (train, tests) if name not in ("train", "validation")]
    assert [note.partition("/ is taken as the ")[0] for note in data.notes] == taken


def test_which_of_several_such_folders_is_meant_is_asked(tmp_path):
    for name in ("train_images", "train_masks", "test_images", "test_masks"):
        draw(tmp_path / name / "a.png", 1)
    with pytest.raises(
        DataError, match=r"several .* train images: train_images, train_masks; name"
    ):
        load_folder(tmp_path)
    (tmp_path / "test_masks" / "a.png").unlink()
    data = load_folder(tmp_path)
    assert len(data.train) == 1 and "not used: test_masks/, train_masks/" in said(data)


def test_a_word_alone_makes_no_part(tmp_path):
    """A class may be called like that."""
    for name in ("train station", "bus stop", "test tube"):
        draw(tmp_path / name / "a.png", 1)
    assert load_folder(tmp_path).class_names == ("bus stop", "test tube", "train station")


def test_a_folder_of_photos_that_is_called_test_is_trained_with_if_asked(tmp_path):
    for name in ("holiday", "test"):
        draw(tmp_path / name / "a.png", 1)
    with pytest.raises(DataError, match=r"or data\.options\.labels=none to train with all"):
        load_folder(tmp_path)
    data = load_folder(tmp_path, labels="none")
    assert len(data.train) == 2 and "test/ in" in said(data) and "is trained with too" in said(data)


def test_a_class_that_is_called_train_is_told_how_to_be_one(tmp_path):
    for name in ("bus", "car", "train"):
        draw(tmp_path / name / "a.png", 1)
    told = said(load_folder(tmp_path))
    assert "not used: bus/, car/" in told
    assert "move all of them into one folder: train/bus, ..., train/train" in told


def test_train_in_any_case(tmp_path):
    images = write_folder(tmp_path)
    (tmp_path / "train").rename(tmp_path / "Train")
    assert torch.equal(all_images(load_folder(tmp_path).train), images[:4])


def test_of_several_test_folders_the_first_is_used_and_the_others_are_named(tmp_path):
    write_folder(tmp_path)
    draw(tmp_path / "val/cat/0.png", 0)
    draw(tmp_path / "more/cat/0.png", 0)
    data = load_folder(tmp_path)
    assert len(data.test) == 2
    assert f"not used: more/, val/ in {tmp_path}" in said(data)


def test_images_beside_train_are_not_used_and_counted(tmp_path):
    write_folder(tmp_path)
    draw(tmp_path / "a.png", 0)
    (tmp_path / "labels.csv").write_text("x")
    assert load_folder(tmp_path).notes == (f"not used: 1 image in {tmp_path}",)
    draw(tmp_path / "b.png", 0)
    draw(tmp_path / "more/c.png", 0)
    assert load_folder(tmp_path).notes == (f"not used: 2 images, more/ in {tmp_path}",)


def test_images_below_class_folders_are_of_the_class(tmp_path):
    for number, camera in enumerate(("camera1", "camera2", "camera1/old")):
        draw(tmp_path / f"train/cat/{camera}/{number}.png", 10 + number)
        draw(tmp_path / f"train/dog/{camera}/{number}.png", 20 + number)
    data = load_folder(tmp_path)
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert levels(data.train) == [10, 12, 11, 20, 22, 21]  # by folder, then by name


# ---- without ----


def test_a_flat_folder_has_no_labels_and_no_test_images(tmp_path):
    for number in (2, 0, 1):
        draw(tmp_path / f"IMG_{number}.png", number)
    data = load_folder(tmp_path)
    assert levels(data.train) == [0, 1, 2]
    assert data.train.labels.tolist() == [-1, -1, -1]
    assert (len(data.test), data.num_classes, data.class_names) == (0, 0, ())


def test_class_folders_without_a_test_part(tmp_path):
    for label, name in enumerate(("cat", "dog")):
        draw(tmp_path / f"{name}/0.png", label)
    data = load_folder(tmp_path)
    assert data.train.labels.tolist() == [0, 1] and len(data.test) == 0
    assert "its folders cat, dog are taken as classes (data.options.labels=none" in said(data)
    draw(tmp_path / "train/cat/0.png", 5)
    assert load_folder(tmp_path).train.labels.tolist() == [0]


def test_labels_none_takes_no_folder_for_a_class(tmp_path):
    draw(tmp_path / "2023/05/b.png", 1)
    draw(tmp_path / "2024/01/a.png", 2)
    draw(tmp_path / "z.png", 3)
    data = load_folder(tmp_path, labels="none")
    assert levels(data.train) == [1, 2, 3] and data.num_classes == 0
    assert data.train.labels.tolist() == [-1, -1, -1]


def test_images_beside_class_folders_have_no_class(tmp_path):
    draw(tmp_path / "cat/0.png", 1)
    draw(tmp_path / "dog/0.png", 2)
    draw(tmp_path / "a.png", 3)
    data = load_folder(tmp_path)
    assert (levels(data.train), data.train.labels.tolist()) == ([1, 2, 3], [0, 1, -1])


def test_unlabelled_training_images_beside_labelled_test_images(tmp_path):
    draw(tmp_path / "train/0.png", 1)
    draw(tmp_path / "test/cat/0.png", 2)
    draw(tmp_path / "test/dog/0.png", 3)
    data = load_folder(tmp_path)
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([-1], [0, 1])
    assert data.num_classes == 2


# ---- masks, small images, folders that nobody may look into ----


@pytest.mark.parametrize("masks", ["masks", "SegmentationClass", "annotations/trimaps", "labels"])
@pytest.mark.parametrize("parts", ["", "train/"])
def test_masks_are_no_class_beside_pictures(tmp_path, masks, parts):
    for number in range(3):
        draw(tmp_path / f"{parts}images" / f"{number}.png", number)
        draw(tmp_path / f"{parts}{masks}" / f"{number}.png", 7)
    data = load_folder(tmp_path)
    assert levels(data.train) == [0, 1, 2] and data.num_classes == 0
    first = masks.partition("/")[0]
    assert f"left out: images in {first}/ beside images/ (3)" in data.notes
    assert levels(load_folder(tmp_path, labels="none").train) == [0, 1, 2]


def test_classes_among_the_pictures_stay_classes(tmp_path):
    for part in ("train", "test"):
        for number, name in enumerate(("cat", "dog")):
            draw(tmp_path / part / "images" / name / "0.png", number)
            draw(tmp_path / part / "masks" / name / "0.png", 7)
    data = load_folder(tmp_path)
    assert data.class_names == ("cat", "dog")
    assert levels(data.train) == levels(data.test) == [0, 1]


def test_parts_among_the_pictures_are_looked_into(tmp_path):
    for number, part in enumerate(("train", "val")):
        draw(tmp_path / "images" / part / "0.png", number)
        draw(tmp_path / "masks" / part / "0.png", 7)
    data = load_folder(tmp_path)
    assert (levels(data.train), levels(data.test)) == ([0], [1])
    assert f"not used: masks/ in {tmp_path}" in data.notes


@pytest.mark.parametrize("names", [("train",), ("person",), ("cat", "dog")])
def test_folders_among_the_pictures_are_named_where_they_are(tmp_path, names):
    for number, name in enumerate(names):
        draw(tmp_path / "images" / name / "0.png", number)
    draw(tmp_path / "masks" / "0.png", 7)
    data = load_folder(tmp_path)
    assert levels(data.train) == list(range(len(names)))
    if names != ("train",):
        assert f"no train/ in {tmp_path}/images: its folders {', '.join(names)} are" in said(data)


def test_a_class_called_masks_beside_others_is_one(tmp_path):
    for number, name in enumerate(("masks", "hats")):
        draw(tmp_path / "train" / name / "0.png", number)
    assert load_folder(tmp_path).class_names == ("hats", "masks")


def test_folders_that_are_no_classes_have_a_way_out(tmp_path):
    """As MVTec has them, or folders by patient."""
    for number, place in enumerate(("train/good", "test/good", "test/broken")):
        draw(tmp_path / place / "0.png", number)
    with pytest.raises(
        DataError, match=r"'broken', which .*labels=none if these folders are no cl"
    ):
        load_folder(tmp_path)
    assert len(load_folder(tmp_path, labels="none").test) == 2


def test_images_that_are_enlarged_to_the_views_are_told(tmp_path):
    draw(tmp_path / "1.png", 1)
    side = load_folder(tmp_path).train.images(torch.tensor([0])).shape[-1]
    assert not [
        one for one in load_folder(tmp_path, image_size=side).notes if "are enlarged" in one
    ]
    (note,) = load_folder(tmp_path, image_size=2 * side).notes
    assert f"typically {side} px wide, and are enlarged to the {2 * side} px" in note


def test_a_folder_that_nobody_may_look_into_is_a_broken_one(tmp_path, monkeypatch):
    draw(tmp_path / "a" / "1.png", 1)
    (tmp_path / "a" / "private").mkdir()
    scandir = os.scandir

    def closed(folder):
        if os.path.basename(folder) == "private":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(
        DataError, match=r"private: a folder that can't be looked into \(Permission"
    ):
        load_folder(tmp_path)
    assert levels(load_folder(tmp_path, skip_broken=True).train) == [1]


# ---- a table of labels ----


@pytest.mark.parametrize(
    "table",
    [
        "image,class\na/1.png,cat\n2.png,dog\n3.png,\n",
        "a/1.png;cat\n2.png;dog\n",
        "filename\tlabel\na/1.png\tcat\textra\n2.png\tdog\n\n",
        '\ufeff"a/1.png","cat"\n"2.png","dog"',
    ],
)
def test_a_table_gives_some_images_a_class(tmp_path, table):
    for number, name in enumerate(("2.png", "3.png", "a/1.png")):
        draw(tmp_path / name, number)
    (tmp_path / "labels.csv").write_text(table, encoding="utf-8")
    data = load_folder(tmp_path, labels="labels.csv")
    of_level = dict(zip(levels(data.train), data.train.labels.tolist(), strict=True))
    assert of_level == {0: 1, 1: -1, 2: 0}
    assert data.class_names == ("cat", "dog")


@pytest.mark.parametrize("word", ["image_id", "id_code", "img", "ImageId", "image_name"])
def test_a_line_of_headings_is_skipped(tmp_path, word):
    draw(tmp_path / "1.png", 1)
    (tmp_path / "t.csv").write_text(f"{word},class\n1.png,cat\n")
    assert load_folder(tmp_path, labels="t.csv").class_names == ("cat",)


def test_classes_that_are_numbers_are_in_their_order(tmp_path):
    for number in (2, 10, 9):
        draw(tmp_path / f"{number}.png", number)
    (tmp_path / "t.csv").write_text("2.png,2\n10.png,10\n9.png,9\n")
    assert load_folder(tmp_path, labels="t.csv").class_names == ("2", "9", "10")


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (
            "7.png,cat\n8.png,cat\n",
            r"t\.csv, line 1: there is no image '7\.png' below .*image_column",
        ),
        (
            "1.png,cat\n1.png,dog\n",
            r"line 2: '1\.png' is of class 'dog', and in .*line 1 of .*'cat'",
        ),
        ("1.png\n", "line 1: expected an image and its class"),
        ("", "is empty"),
        ("image,dx\n1.png\n", "line 2: expected an image and its class"),
        ("7.png,label\n", r"line 1: there is no image '7\.png' below"),
    ],
)
def test_a_wrong_table_names_its_line(tmp_path, table, says):
    draw(tmp_path / "1.png", 1)
    (tmp_path / "t.csv").write_text(table)
    with pytest.raises(DataError, match=says):
        load_folder(tmp_path, labels="t.csv")


@pytest.mark.parametrize(
    ("table", "classes", "note"),
    [
        ("image_id,age,dx\n1.png,43,mel\n2.png,50,nv\n", "mel nv", "its column 'dx' is taken"),
        ("lesion,image,label\nH1,1.png,b\nH2,2.png,a\n", "b a", "its column 'label' is taken"),
        ("label,image\nb,1.png\na,2.png\n", "b a", None),
        ("picture,label\n1.png,b\n2.png,a\n", "b a", None),
        ("image,weight,height\n1.png,7,8\n2.png,6,9\n", "7 6", "its column 'weight' is taken"),
        ("1.png,b,x\n2.png,a,y\n", "b a", "no line of headings; its second column is taken"),
        ("1.png,label\n2.png,class\n", "label class", None),
        ("id_code,diagnosis\n1,4\n2,0\n", "4 0", None),
        ("image\tlabel\n1.png\tb\n2.png\t\n", "b -", None),
        (
            "Image Index,Finding,Age\n1.png,b,58\n2.png,a,61\n",
            "b a",
            "its column 'Finding' is taken",
        ),
        ("Patient ID,Image Index,Finding\n7,1.png,b\n8,2.png,a\n", "b a", "column 'Finding' is"),
        ("1.png,cat;dog\n2.png,cat\n", "cat;dog cat", None),
        ("1.png,cat;dog\n2.png,owl;emu\n", "cat;dog owl;emu", None),
        ("1.png;cat, tame\n2.png;cat, wild\n", "cat, tame cat, wild", None),
    ],
)
def test_the_headings_say_which_column_has_the_class(tmp_path, table, classes, note):
    for number in (1, 2):
        draw(tmp_path / f"{number}.png", number)
    (tmp_path / "t.csv").write_text(table)
    data = load_folder(tmp_path, labels="t.csv")
    names = [*data.class_names, "-"]
    assert " ".join(names[label] for label in data.train.labels) == classes
    assert data.notes == () if note is None else [note in one for one in data.notes] == [True]


def test_a_table_may_leave_out_ending_and_folder_where_one_image_is_meant(tmp_path):
    for number, place in enumerate(("a/1.png", "a/2.png", "b/2.png", "b/3.png", "4.png")):
        draw(tmp_path / place, number)
    (tmp_path / "t.csv").write_text("a/1,cat\nb/2,owl\n3.png,dog\n4,cat\n")
    data = load_folder(tmp_path, labels="t.csv")
    of_level = dict(zip(levels(data.train), data.train.labels.tolist(), strict=True))
    assert of_level == {0: 0, 1: -1, 2: 2, 3: 1, 4: 0}
    (tmp_path / "t.csv").write_text("2.png,cat\n")
    with pytest.raises(DataError, match=r"line 1: '2\.png' may be any of 2 images \(.*a/2.*b/2"):
        load_folder(tmp_path, labels="t.csv")


def test_lines_about_images_that_are_not_here_are_counted(tmp_path):
    """A table may be that of twelve archives, of which one is unpacked."""
    for number in (1, 2):
        draw(tmp_path / f"{number}.png", number)
    (tmp_path / "t.csv").write_text("1.png,cat\n7.png,owl\n2.png,dog\n2.png,dog\n8.png,owl\n")
    data = load_folder(tmp_path, labels="t.csv")
    assert data.class_names == ("cat", "dog") and data.train.labels.tolist() == [0, 1]
    assert data.notes == ("2 of 5 lines of t.csv name no image that is here (the first: 7.png)",)


def test_places_may_be_written_as_other_systems_do(tmp_path):
    draw(tmp_path / "a" / "1.png", 1)
    draw(tmp_path / "a" / "2.png", 2)
    (tmp_path / "t.csv").write_text(f"a\\1.png,cat\n{tmp_path}/a/2.png,dog\n")
    assert load_folder(tmp_path, labels="t.csv").class_names == ("cat", "dog")


def test_the_columns_of_a_table_can_be_named(tmp_path):
    for number in (1, 2):
        draw(tmp_path / f"{number}.png", number)
    (tmp_path / "t.csv").write_text("file,width,Class Name\n1.png,7,b\n2.png,9,a\n")
    assert load_folder(tmp_path, labels="t.csv").class_names == ("7", "9")
    data = load_folder(tmp_path, labels="t.csv", label_column="class name")
    assert data.class_names == ("a", "b") and data.notes == ()
    data = load_folder(tmp_path, labels="t.csv", image_column="file", label_column="width")
    assert data.class_names == ("7", "9")
    with pytest.raises(DataError, match=r"no column 'klass' \(data\.options\.label_column\); its "):
        load_folder(tmp_path, labels="t.csv", label_column="klass")


@pytest.mark.parametrize(
    ("table", "named", "classes"),
    [
        ("patient,scan,outcome\n17,1.png,b\n18,2.png,a\n", {"label_column": "outcome"}, "b a"),
        ("dx,scan\nb,1.png\na,2.png\n", {"label_column": "dx"}, "b a"),
        ("dx,scan\nb,1.png\na,2.png\n", {"image_column": "scan"}, "b a"),
        ("image,age,dx\n1.png,7,b\n2.png,6,a\n", {"image_column": "image"}, "b a"),
    ],
)
def test_the_other_column_is_found(tmp_path, table, named, classes):
    for number in (1, 2):
        draw(tmp_path / f"{number}.png", number)
    (tmp_path / "t.csv").write_text(table)
    data = load_folder(tmp_path, labels="t.csv", **named)
    assert " ".join(data.class_names[label] for label in data.train.labels) == classes


def test_columns_that_say_nothing_are_answered(tmp_path):
    draw(tmp_path / "1.png", 1)
    (tmp_path / "t.csv").write_text("image\n1.png\n")
    with pytest.raises(DataError, match="one column for both the images and their classes"):
        load_folder(tmp_path, labels="t.csv", image_column="image")
    with pytest.raises(ConfigError, match=r"name it by data\.options\.labels=<table>"):
        load_folder(tmp_path, label_column="dx")


def test_names_with_a_backslash_and_roots_by_a_link_are_found(tmp_path, monkeypatch):
    draw(tmp_path / "real" / "a\\1.png", 1)
    draw(tmp_path / "real" / "b" / "2.png", 2)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path / "real" / "b")
    for root in (tmp_path / "link", "../../link", "../../real"):
        for place in ("real", "link") if root != "../../real" else ("real",):
            (tmp_path / "real" / "t.csv").write_text(
                f"a\\1.png,cat\n{tmp_path}/{place}/b/2.png,dog\n"
            )
            assert load_folder(root, labels="t.csv").class_names == ("cat", "dog")


def test_cells_may_be_long(tmp_path):
    draw(tmp_path / "1.png", 1)
    (tmp_path / "t.csv").write_text(f"image,outline,label\n1.png,{'1 2 ' * 50_000},cat\n")
    assert load_folder(tmp_path, labels="t.csv").class_names == ("cat",)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.json", b'{"images": [' + b"1, " * 100_000 + b"1]}", "is no table; make one of it"),
        ("t.xlsx", b"PK\x03\x04", "is a spreadsheet; save it as .csv"),
        ("t.csv", "1.png,Löwe\n".encode("cp1252"), "not in UTF-8; save it so"),
    ],
)
def test_files_that_are_no_tables_are_answered_with_what_to_do(tmp_path, name, content, says):
    draw(tmp_path / "1.png", 1)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=says):
        load_folder(tmp_path, labels=name)


def test_the_table_is_not_left_out(tmp_path):
    write_folder(tmp_path)
    for place in ("train/t.csv", "train/other.csv"):
        (tmp_path / place).write_text("train/cat/0.png,cat\n")
    data = load_folder(tmp_path, labels="train/t.csv")
    assert data.notes == ("left out: no image: .csv (1)",)


def test_labels_that_are_neither_a_word_nor_a_table(tmp_path):
    draw(tmp_path / "1.png", 1)
    with pytest.raises(DataError, match="labels must be folders, none or a table; there is no"):
        load_folder(tmp_path, labels="folder")


# ---- folders in folders ----


@pytest.mark.parametrize("labels", ["folders", "none"])
@pytest.mark.parametrize("wrapper", ["dataset", "a/b/c"])
def test_a_folder_around_train_and_test_is_looked_into(tmp_path, labels, wrapper):
    images = write_folder(tmp_path / wrapper)
    (tmp_path / "read.me").write_text("x")
    data = load_folder(tmp_path, labels=labels)
    assert torch.equal(all_images(data.train), images[:4])
    assert torch.equal(all_images(data.test), images[4:])
    assert data.class_names == (("cat", "dog") if labels == "folders" else ())
    assert data.notes == (f"{tmp_path} has its images in {wrapper}/, which is read",)


def test_folders_beside_it_without_images_do_not_matter(tmp_path):
    """As for finding things in pictures: their boxes are beside them in texts."""
    images = write_folder(tmp_path / "images")
    for part in ("train", "test"):
        (tmp_path / f"labels/{part}").mkdir(parents=True)
        (tmp_path / f"labels/{part}/0.txt").write_text("0 1 1 2 2")
    data = load_folder(tmp_path)
    assert torch.equal(all_images(data.train), images[:4])
    assert torch.equal(all_images(data.test), images[4:])


def test_a_folder_around_test_images_without_training_images(tmp_path):
    draw(tmp_path / "all/val/a.png", 1)
    draw(tmp_path / "all/cat/a.png", 1)
    with pytest.raises(DataError, match=r"/all has val/ but no train/; found cat, val\."):
        load_folder(tmp_path)


def test_test_images_in_several_folders_are_not_trained_with_unless_asked(tmp_path):
    for name in ("bottle", "cable"):
        write_folder(tmp_path / name)
    with pytest.raises(DataError, match=r"beside test images in bottle, cable\. Set .*/bottle\)"):
        load_folder(tmp_path)
    data = load_folder(tmp_path, labels="none")
    assert len(data.train) == 12
    assert "all images are training images" in said(data)


def test_a_folder_around_class_folders_is_a_class_and_the_way_out_is_said(tmp_path):
    for name in ("cat", "dog"):
        draw(tmp_path / f"all/{name}/a.png", 1)
    data = load_folder(tmp_path)
    assert data.class_names == ("all",)
    assert f"data={tmp_path}/all if those in it are)" in said(data)


def test_a_part_that_an_archive_has_twice(tmp_path):
    draw(tmp_path / "train/train/cat/a.png", 1)
    draw(tmp_path / "test/test/cat/a.png", 2)
    data = load_folder(tmp_path)
    assert (levels(data.train), levels(data.test), data.class_names) == ([1], [2], ("cat",))


# ---- what is left out ----


@pytest.fixture
def without_heif(monkeypatch):
    """As where pillow-heif is not installed."""
    known = suffixes() - {".heic", ".heics", ".heif", ".heifs", ".hif"}
    monkeypatch.setattr(listing, "suffixes", lambda: known)


def test_what_is_no_image_is_counted_by_reason(tmp_path, without_heif):
    write_folder(tmp_path)
    for place in ("train/cat/.DS_Store", "train/cat/._0.png", "train/Thumbs.db", "train/read.txt"):
        (tmp_path / place).write_bytes(b"x")
    for place in ("train/zebra", "train/.ipynb_checkpoints", "train/__MACOSX", "train/cat/old.jpg"):
        (tmp_path / place).mkdir()
    (tmp_path / "test/cat/photo.HEIC").write_bytes(b"x")
    draw(tmp_path / "train/__MACOSX/1.png", 0)
    data = load_folder(tmp_path)
    assert len(data.train) == 4 and data.class_names == ("cat", "dog")
    (note,) = data.notes
    assert note == (
        "left out: folders without images (1), hidden (4), no image: .db (1), "
        "no image: .heic, needs pip install 'dogo-fed[heif]' (1), no image: .txt (1)"
    )


def test_every_format_that_pillow_reads_is_an_image(tmp_path):
    assert {".webp", ".tif", ".tiff", ".bmp", ".gif", ".jfif", ".ppm", ".jpg"} <= suffixes()
    assert not {".pdf", ".mpg", ".h5", ".eps"} & suffixes()
    endings = ("webp", "tif", "bmp", "gif", "jfif", "ppm", "JPG", "jpeg", "png")
    for number, ending in enumerate(endings):
        draw(tmp_path / f"{number}.{ending}", 100 + 5 * number)
    data = load_folder(tmp_path)
    assert levels(data.train) == [100 + 5 * number for number in range(len(endings))]
    assert data.notes == ()


def test_links_are_followed_but_not_in_circles(tmp_path):
    draw(tmp_path / "elsewhere/0.png", 9)
    root = tmp_path / "root"
    draw(root / "cat/0.png", 1)
    (root / "dog").symlink_to(tmp_path / "elsewhere")
    (root / "cat/again").symlink_to(root / "cat")
    data = load_folder(root)
    assert (levels(data.train), data.train.labels.tolist()) == ([1, 9], [0, 1])
    assert "links to a folder above (1)" in said(data)


def test_pictures_without_an_ending_are_known_by_how_they_begin(tmp_path):
    for number, kind in enumerate(("jpg", "png", "gif", "tif", "webp")):
        draw(tmp_path / f"a{number}.{kind}", 50 * number)
        os.rename(tmp_path / f"a{number}.{kind}", tmp_path / f"a{number}")
    (tmp_path / "LICENSE").write_text("RIFF and text")
    data = load_folder(tmp_path)
    assert levels(data.train) == [0, 50, 100, 150, 200]
    assert data.notes == ("left out: no image: LICENSE (1)",)


@pytest.mark.parametrize("name", ["@eaDir", "lost+found", "$RECYCLE.BIN", "#recycle"])
def test_what_a_storage_device_leaves_is_no_class(tmp_path, name):
    draw(tmp_path / "cat/a.png", 1)
    draw(tmp_path / f"{name}/a.png", 2)
    draw(tmp_path / f"cat/{name}/a.png/small.png", 3)
    data = load_folder(tmp_path)
    assert (levels(data.train), data.class_names) == ([1], ("cat",))


def test_a_link_that_leads_to_itself_is_a_broken_one(tmp_path):
    draw(tmp_path / "cat/a.png", 1)
    for name in ("b.png", "folder"):
        (tmp_path / "cat" / name).symlink_to(name)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(DataError, match=r"b\.png: a link to nothing \(Too many levels"):
        load_folder(tmp_path)
    data = load_folder(tmp_path, skip_broken=True)
    assert levels(data.train) == [1]
    assert "no image: folder (1), no image: loop (1)" in said(data)


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems take only names of text")
def test_names_that_are_not_utf_8(tmp_path):
    images = write_folder(tmp_path)
    for split in ("train", "test"):
        folder = tmp_path / split / "dog"
        folder.rename(os.fsdecode(os.fsencode(tmp_path / split) + b"/d\xff\xfeg"))
    data = load_folder(tmp_path)
    assert torch.equal(all_images(data.train), images[:4])
    assert json.loads(json.dumps(data.class_names))[1].encode("utf-8", "surrogateescape") == (
        b"d\xff\xfeg"
    )


# ---- what is broken ----


def break_some(tmp_path, number):
    for index in range(40):
        draw(tmp_path / f"{index:02d}.png", index)
    for index in range(number):
        (tmp_path / f"{index:02d}.png").write_bytes(b"" if index % 2 else b"no image")


def test_all_broken_images_are_named_at_once(tmp_path):
    break_some(tmp_path, 3)
    (tmp_path / "40.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError) as caught:
        load_folder(tmp_path)
    message = str(caught.value)
    assert message.startswith("image_folder: 4 images can't be read: ")
    assert all(f"{tmp_path}/{index:02d}.png: " in message for index in (0, 1, 2, 40))
    assert "40.png: a link to nothing" in message
    assert message.endswith("data.options.skip_broken=true. What was decoded is kept")


def test_of_many_broken_images_twenty_are_named(tmp_path):
    break_some(tmp_path, 30)
    with pytest.raises(DataError, match=r"30 images can't be read: .*19\.png: .* and 10 more\. "):
        load_folder(tmp_path)


def test_broken_images_are_left_out_if_asked_and_listed(tmp_path):
    break_some(tmp_path, 2)
    draw(tmp_path / "test/x.png", 0)
    os.rename(tmp_path / "test", tmp_path / "aside")
    data = load_folder(tmp_path, skip_broken=True, labels="none")
    assert levels(data.train) == [*range(2, 40), 0]
    assert len(data.train.labels) == 39
    assert data.fingerprint == fingerprint(all_images(data.train))
    assert "left out, broken: 2 (" in said(data) and "01.png" in said(data)


def test_if_all_are_broken_nothing_is_trained(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no")
    with pytest.raises(DataError, match="none of the training images"):
        load_folder(tmp_path, skip_broken=True)


# ---- layouts that can't be read ----


def test_a_folder_that_is_not_there_names_the_nearest(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DataError, match=r"no folder .*/picture; did you mean 'pictures'\?"):
        load_folder(tmp_path / "picture")


def test_a_file_is_no_folder(tmp_path):
    draw(tmp_path / "a.png", 1)
    with pytest.raises(DataError, match=r"a\.png is a file; image_folder takes a folder"):
        load_folder(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a.tar", r"data=webdataset data\.options\.root=/.*/a\.tar"),
        ("a.npz", r"data=npz data\.options\.path=/.*/a\.npz"),
        ("a.zip", "unpack it"),
        ("a.tar.gz", "unpack it"),
        ("a.csv", r"data\.options\.labels=/.*/a\.csv"),
    ],
)
def test_a_file_of_another_kind_names_what_reads_it(tmp_path, name, says):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=f"is a file; .*{says}"):
        load_folder(tmp_path / name)


def test_test_images_without_training_images(tmp_path):
    draw(tmp_path / "Test/cat/a.png", 1)
    draw(tmp_path / "cats/a.png", 1)
    with pytest.raises(DataError, match=r"has Test/ but no train/; found Test, cats\. Name"):
        load_folder(tmp_path)


def test_photos_of_phones_are_read(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    assert ".heic" in suffixes()
    for number, name in enumerate(("a.heic", "b.HEIC", "c.jpg")):
        image = Image.fromarray(np.full((16, 16, 3), 60 * number, np.uint8))
        pillow_heif.from_pillow(image).save(tmp_path / name, quality=100)
    found = levels(load_folder(tmp_path).train)
    assert [round(level / 60) for level in found] == [0, 1, 2], "one has another name"


def test_files_that_are_something_else_are_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "open", lambda file: no_image(file))
    for name, content, says in (
        ("a.jpg", b"\0\0\0\x1cftypheic\0\0", "it is HEIC, whatever its name; pip install"),
        ("b.jpg", b"<!DOCTYPE html><title>Log in", "it is a web page and no image"),
        ("c.jpg", b"", "it is empty"),
        ("d.jpg", b"x", "it is no image that can be read"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=says):
            load_folder(tmp_path)
        (tmp_path / name).unlink()


def no_image(file):
    raise UnidentifiedImageError(f"cannot identify image file {file}")


def test_no_images_says_what_there_is_instead(tmp_path, without_heif):
    with pytest.raises(DataError, match="has no images; it is empty"):
        load_folder(tmp_path)
    (tmp_path / "a.heic").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"folders without images \(1\), no image: \.heic, needs"):
        load_folder(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match=r"train, the training part of .*, has no images"):
        load_folder(tmp_path)


def test_a_class_that_was_not_trained_is_refused_but_an_empty_folder_is_none(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "test" / "bird").mkdir()
    load_folder(tmp_path)
    draw(tmp_path / "test/bird/a.png", 1)
    with pytest.raises(DataError, match=r"has the class 'bird', .*\(they have cat, dog\)"):
        load_folder(tmp_path)


# ---- the size at which images are stored ----


def test_images_are_stored_at_up_to_twice_the_side_of_the_views(tmp_path):
    stored = {}
    for side in (6, 8, 12, 40):
        draw(tmp_path / f"{side}/a.png", 1, size=side)
        data = load_folder(tmp_path / f"{side}")
        assert data.image_size == 8
        stored[side] = data.train.images(torch.tensor([0])).shape[-1]
    assert stored == {6: 8, 8: 8, 12: 12, 40: 16}
    data = load_folder(tmp_path / "40", stored_size=33)
    assert data.train.images(torch.tensor([0])).shape[-1] == 33
    with pytest.raises(
        ConfigError, match=r"stored_size=7 is less than data\.options\.image_size=8"
    ):
        load_folder(tmp_path / "40", stored_size=7)


def test_images_of_another_shape_are_cropped_to_the_centre(tmp_path):
    write_folder(tmp_path)
    wide = np.zeros((8, 24, 3), dtype=np.uint8)
    wide[:, 8:16] = 200
    Image.fromarray(wide).save(tmp_path / "train" / "cat" / "0.png")
    data = load_folder(tmp_path)
    assert (data.train.images(torch.tensor([0])) == 200).all()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"image_size": 0}, "image_size must be at least 1"),
        ({"channels": 2}, "channels must be 1 or 3, not 2"),
        ({"ground": "sky"}, "ground must be a colour"),
        ({"value_range": [1]}, "value_range must be .black, white."),
        ({"value_range": [5, 5]}, "black below white"),
        ({"max_megapixels": 0}, "max_megapixels must be above 0"),
        ({"image_size": "big"}, "option 'image_size' .* must be a whole number"),
    ],
)
def test_impossible_options_are_refused(tmp_path, options, says):
    write_folder(tmp_path)
    with pytest.raises(ConfigError, match=says):
        load_folder(tmp_path, **options)
