"""The supervised objective: cross entropy on both views, labels in the right place and nowhere else."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from configs.compose import compose_run
from dogo_fed.data.source import DataSet, TensorImages
from dogo_fed.data.synthetic import synthetic
from dogo_fed.engine.loaded_run import load_run
from dogo_fed.errors import ConfigError
from dogo_fed.objectives.base import Objective
from dogo_fed.objectives.simclr import SimCLR
from dogo_fed.objectives.supervised import Supervised
from dogo_fed.run.prepare import prepare
from tests.support.tiny_run import TINY, run_here
from tests.support.toy_peers import FEATURES, ToyBackbone, toy_images

RUN = (*TINY, "peers=pair", "objective@peers.wide.objective=supervised")


def views() -> tuple[torch.Tensor, torch.Tensor]:
    return toy_images(5).float() / 255, toy_images(5, seed=1).float() / 255


def test_the_loss_is_the_mean_cross_entropy_of_both_views() -> None:
    objective = Supervised(ToyBackbone(), FEATURES, num_classes=3).eval()
    labels = torch.tensor([0, 2, 1, 1, 0])
    output = objective(*views(), labels)
    total = 0.0
    for view in views():
        logits = objective.classifier(objective.backbone(view)).detach()
        for row, label in zip(logits, labels, strict=True):
            total -= math.log(torch.softmax(row, 0)[label])
    assert output.ssl_loss.item() == pytest.approx(total / 10, rel=1e-5)
    assert torch.equal(output.publish.a_ND, objective.backbone(views()[0]))
    output.ssl_loss.backward()
    assert all(parameter.grad is not None for parameter in objective.parameters())


def test_without_labels_or_classes_it_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs the labels"):
        Supervised(ToyBackbone(), FEATURES, num_classes=3)(*views())
    with pytest.raises(ValueError, match="at least 2 classes"):
        Supervised(ToyBackbone(), FEATURES, num_classes=1)


def test_only_it_is_given_labels() -> None:
    assert Supervised.uses_labels and not SimCLR.uses_labels and not Objective.uses_labels


def test_it_is_given_the_labels_of_the_very_images_of_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[torch.Tensor] = []
    original = Supervised.loss

    def loss(self, seen, labels_N=None):
        given.append(labels_N)
        return original(self, seen, labels_N)

    monkeypatch.setattr(Supervised, "loss", loss)
    config = compose_run([*RUN, f"run_dir={tmp_path / 'run'}"])
    summary, run = run_here(config), load_run(config)
    assert len(given) == 3
    for step, labels in enumerate(given):
        assert torch.equal(labels, run.data.own.train.labels[run.schedule.sample_ids(step)])
    assert summary["peers"]["wide"]["objective"] == "supervised"
    assert summary["peers"]["resnet"]["mutual_kl"] > 0, "it may take part in an exchange"


def test_labels_teach(tmp_path: Path) -> None:
    longer = [part for part in RUN if not part.startswith(("steps=", "steps_per_round="))]
    overrides = [*longer, "steps=20", "~peers.resnet", f"run_dir={tmp_path / 'run'}"]
    wide = run_here(compose_run(overrides))["peers"]["wide"]
    assert wide["ssl_loss"] < 0.9 * math.log(4)


def test_unlabelled_images_are_refused() -> None:
    whole = synthetic(size=96, test_size=32)
    labels = whole.train.labels.clone()
    labels[7] = labels[9] = -1
    images = whole.train.images(torch.arange(96))
    holed = DataSet(
        name=whole.name,
        train=TensorImages(images, labels),
        test=whole.test,
        num_classes=whole.num_classes,
        image_size=whole.image_size,
        mean=whole.mean,
        std=whole.std,
        fingerprint=whole.fingerprint,
    )
    with pytest.raises(
        ConfigError, match=r"'wide'.*2 of the 96 training images of synthetic.*none"
    ):
        prepare(compose_run(list(RUN)), dataset=holed)
    prepare(compose_run([*TINY, "peers=pair"]), dataset=holed)
