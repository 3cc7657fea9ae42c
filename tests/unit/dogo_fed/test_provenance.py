"""Where numbers come from: what is kept, what is compared, and what a stranger's file can't say."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from dogo_fed import layout
from dogo_fed.data.source import DataSet
from dogo_fed.data.synthetic import synthetic
from dogo_fed.errors import CheckpointError, DataError
from dogo_fed.packages import source_digest
from dogo_fed.provenance import DataFacts, Provenance, check_same_images
from dogo_fed.storage.provenance_file import read_starts, with_start, write_starts


@pytest.fixture
def dataset() -> DataSet:
    return synthetic(size=32, test_size=8)


@pytest.fixture
def here(dataset: DataSet) -> Provenance:
    return Provenance.of(dataset, torch.device("cpu"), source_digest())


def test_it_comes_back_as_it_was(here: Provenance) -> None:
    assert Provenance.from_plain(json.loads(json.dumps(here.to_plain()))) == here
    assert here.packages["torch"] == torch.__version__.partition("+")[0] or here.packages["torch"]
    assert here.device.startswith("cpu ") and len(here.source) == 32


def test_anchors_of_another_data_set_come_back_and_are_known_again(here: Provenance) -> None:
    others = dataclasses.replace(here, anchors=DataFacts.of(synthetic(size=20, seed=4)))
    again = Provenance.from_plain(json.loads(json.dumps(others.to_plain())))
    assert again == others and here.anchors is None
    others.check_same_images(again, of="a", instead="b")
    changed = dataclasses.replace(again, anchors=DataFacts.of(synthetic(size=21, seed=4)))
    with pytest.raises(DataError, match="num_train was 20 and is 21"):
        others.check_same_images(changed, of="a", instead="b")


def test_the_same_data_set_is_known_again(dataset: DataSet) -> None:
    again = synthetic(size=32, test_size=8)
    assert DataFacts.of(dataset).differences(DataFacts.of(again)) == []


def test_a_folder_that_was_moved_is_known_again(dataset: DataSet) -> None:
    then = DataFacts.of(dataclasses.replace(dataset, title="photos"))
    now = DataFacts.of(dataclasses.replace(dataset, title="photos (old)"))
    assert then.differences(now) == [] and then == now
    plain = dataclasses.asdict(then)
    assert DataFacts.from_plain(plain).title == "photos"
    del plain["title"]  # as an earlier version has written it
    assert DataFacts.from_plain(plain).title == dataset.name


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"size": 33}, {"fingerprint", "num_train", "labels"}),
        ({"seed": 1}, {"fingerprint", "test_fingerprint"}),
        ({"test_size": 9}, {"test_fingerprint", "num_test", "labels"}),
        ({"num_classes": 5}, {"fingerprint", "test_fingerprint", "num_classes", "labels"}),
    ],
)
def test_what_differs_is_named_with_both_values(change, named, dataset: DataSet) -> None:
    other = DataFacts.of(synthetic(**{"size": 32, "test_size": 8, **change}))
    mine = DataFacts.of(dataset)
    phrases = mine.differences(other)
    assert named <= {phrase.split(" was ")[0] for phrase in phrases}
    assert f"fingerprint was {mine.fingerprint}" in " ".join(phrases) or "size" not in change
    with pytest.raises(
        DataError, match=r"the images are not those of run r1: .* Put the images ba"
    ):
        check_same_images(mine, other, of="run r1", instead="begin again")


def test_labels_that_changed_places_are_noticed(dataset: DataSet) -> None:
    swapped = synthetic(size=32, test_size=8)
    labels_N = swapped.test.labels
    labels_N[0], labels_N[1] = labels_N[1].clone(), labels_N[0].clone()
    (phrase,) = DataFacts.of(dataset).differences(DataFacts.of(swapped))
    assert phrase.startswith("labels was ")


def test_test_images_that_an_earlier_version_did_not_look_at_are_no_difference(here) -> None:
    old = dataclasses.replace(here.data, test_fingerprint="")
    assert old.differences(here.data) == here.data.differences(old) == []


def test_other_code_libraries_and_devices_are_named(here: Provenance) -> None:
    other = dataclasses.replace(
        here, source="0" * 32, packages={**here.packages, "torch": "9.9"}, device="cuda H200"
    )
    assert here.changes(here) == []
    assert here.changes(other) == [
        f"source was {here.source} and is {'0' * 32}",
        f"device was {here.device} and is cuda H200",
        f"torch was {here.packages['torch']} and is 9.9",
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 0},
        {"image_size": 10**9},
        {"image_size": "large"},
        {"mean": []},
        {"mean": [0.5], "std": [0.5, 0.5]},
        {"std": [0.0, 0.5, 0.5]},
        {"std": [float("inf")] * 3},
        {"mean": "abc"},
        {"class_names": 7},
    ],
)
def test_what_no_data_set_can_be_is_refused(change, here: Provenance) -> None:
    plain = here.to_plain()
    plain["data"] |= change
    with pytest.raises(CheckpointError, match="no provenance of this version"):
        Provenance.from_plain(plain)
    for broken in (None, [], {}, {"data": None}, {**plain, "packages": 3}):
        with pytest.raises(CheckpointError):
            Provenance.from_plain(broken)


def test_a_start_that_changes_nothing_adds_nothing_and_steps_done_again_are_left_out(
    here: Provenance, tmp_path: Path
) -> None:
    other = dataclasses.replace(here, source="0" * 32)
    first = with_start((), 0, here)
    assert with_start(first, 7, here) == first
    second = with_start(first, 7, other)
    assert [one.step for one in second] == [0, 7]
    assert [one.step for one in with_start(second, 7, here)] == [0]
    assert [one.provenance for one in with_start(second, 0, other)] == [other]
    write_starts(tmp_path, second)
    assert read_starts(tmp_path) == second


def test_a_folder_of_an_earlier_version_has_none_and_a_broken_file_is_named(tmp_path: Path) -> None:
    assert read_starts(tmp_path) == ()
    for text in ("{", "7", '[{"step": 0}]', '[{"step": "many"}]'):
        (tmp_path / layout.PROVENANCE).write_text(text)
        with pytest.raises(
            CheckpointError, match=r"provenance\.json can't be read .* remove it to"
        ):
            read_starts(tmp_path)
