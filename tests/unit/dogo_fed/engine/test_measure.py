"""What is measured of a peer at the end of a round: accuracies where they say something."""

from __future__ import annotations

import math

import pytest
import torch

from configs.compose import compose_run
from dogo_fed.data.map_style import dataset_from_arrays
from dogo_fed.engine.loaded_run import load_run
from dogo_fed.engine.measure import measure
from dogo_fed.errors import ConfigError

TINY = ("data=synthetic", "batch_size=8", "eval.linear_epochs=1", "eval.knn_k=3")


def measured(classes, *settings):
    """Returns what is measured of an untrained peer on images of so many classes."""
    images_NCHW = torch.randint(
        0, 256, (32, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    labels = [index % classes for index in range(32)] if classes else None
    data = dataset_from_arrays(
        "mine", images_NCHW[:24], labels and labels[:24], images_NCHW[24:], labels and labels[24:]
    )
    run = load_run(compose_run([*TINY, *settings]), data)
    return measure(run.build_peer("wide", torch.device("cpu")), run, linear_probe=True)


@pytest.mark.parametrize("classes", [0, 1])
def test_without_classes_the_health_takes_the_place_of_accuracies(classes):
    found = measured(classes)
    assert math.isnan(found.knn_top1) and math.isnan(found.linear_top1)
    assert found.rankme >= 1.0 and math.isfinite(found.alignment + found.uniformity)


def test_with_classes_the_health_is_measured_if_asked():
    found = measured(2)
    assert 0.0 <= found.knn_top1 <= 1.0 and 0.0 <= found.linear_top1 <= 1.0
    assert math.isnan(found.rankme)
    assert measured(2, "eval.health=true").rankme >= 1.0


def test_a_site_with_fewer_labelled_images_than_neighbours_is_measured_all_the_same():
    """Whether it fails would tell its coordinator how many there are."""
    few = ("+data@peers.wide.data=synthetic", "peers.wide.data.options.size=12",
           "peers.wide.data.options.test_size=4", "peers.wide.data.options.seed=3")  # fmt: skip
    settings = [*TINY, "data.options.size=48", "data.options.test_size=8", *few, "eval.knn_k=40"]
    run = load_run(compose_run(settings), peers=("wide",))
    found = measure(run.build_peer("wide", torch.device("cpu")), run, linear_probe=False)
    assert run.knn_k("wide") == 12 and 0.0 <= found.knn_top1 <= 1.0
    with pytest.raises(ConfigError, match=r"eval\.knn_k=40 is more than the 12 labelled"):
        load_run(compose_run(settings), is_to_start=True)
