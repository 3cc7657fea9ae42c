"""An evaluation says that it goes on, in each of its parts that may take long."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from dogo_fed.data.synthetic import synthetic
from dogo_fed.evaluation.features import FrozenFeatures, extract_features
from dogo_fed.evaluation.knn import knn_predictions
from dogo_fed.evaluation.linear_probe import linear_probe
from dogo_fed.evaluation.protocols.health import health
from dogo_fed.evaluation.pulse import beat, listening
from dogo_fed.evaluation.representation import uniformity
from dogo_fed.evaluation.softmax_probe import ProbeRecipe, fit
from dogo_fed.evaluation.subject import Encoder, Inputs, Subject


def beats_of(work: Callable[[], object]) -> int:
    beats: list[int] = []
    with listening(lambda: beats.append(1)):
        work()
    return len(beats)


@pytest.fixture
def features() -> FrozenFeatures:
    generator = torch.Generator().manual_seed(0)
    return FrozenFeatures(torch.randn(64, 8, generator=generator), torch.arange(64) % 4)


def test_every_batch_of_features_beats() -> None:
    source = synthetic(size=64, test_size=16).train
    flat = torch.nn.Flatten()
    assert beats_of(lambda: extract_features(flat, source, lambda images: images / 255.0, 16)) == 4


def test_every_chunk_of_queries_beats(features) -> None:
    work = lambda: knn_predictions(features, features.features_NF, 5, queries_per_chunk=16)  # noqa: E731
    assert beats_of(work) == 4


def test_every_update_of_the_probe_beats(features) -> None:
    work = lambda: linear_probe(features, features, 4, torch.Generator(), epochs=3, batch_size=32)  # noqa: E731
    assert beats_of(work) == 6


def test_every_update_of_the_probe_for_few_labels_beats(features) -> None:
    recipe = ProbeRecipe(num_updates=7, batch_size=16)
    assert beats_of(lambda: fit(features, 4, (1e-5,), torch.Generator(), recipe)) == 7


def test_every_chunk_of_pairs_beats(features) -> None:
    assert beats_of(lambda: uniformity(features.features_NF)) == 1


def test_every_batch_of_views_beats() -> None:
    dataset = synthetic(size=16, test_size=300)
    encoder = Encoder(name="flat", backbone=torch.nn.Flatten(), inputs=Inputs.of(dataset))
    subject = Subject(encoder, dataset, 0)
    assert len(subject.test.labels_N) == 300  # has beaten before
    assert beats_of(lambda: health(subject)) == 2 + 1  # and the pairs


def test_where_nobody_listens_a_beat_is_nothing_and_listeners_nest() -> None:
    heard: list[str] = []
    beat()
    with listening(lambda: heard.append("outer")):
        with listening(lambda: heard.append("inner")):
            beat()
        beat()
    beat()
    assert heard == ["inner", "outer"]
