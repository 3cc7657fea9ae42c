"""What a protocol evaluates: one frozen encoder on one data set, every feature extracted once."""

# N = images, F = features

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import nn

from dogo_fed import seeding
from dogo_fed.data.adapt import adapted
from dogo_fed.data.augment import normalise
from dogo_fed.data.source import DataSet, ImageSource
from dogo_fed.evaluation.features import FrozenFeatures, extract_features
from dogo_fed.evaluation.linear_probe import Standardiser
from dogo_fed.text import one_line

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What an encoder expects of its images; stays the same on every data set.

    Attributes:
        image_size: side in pixels.
        mean, std: per channel, of pixel values scaled to 0..1.
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, dataset: DataSet) -> Inputs:
        """Returns what an encoder trained on `dataset` expects."""
        return cls(image_size=dataset.image_size, mean=dataset.mean, std=dataset.std)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """A frozen backbone and how it is used.

    Attributes:
        name: the peer's name, or that of the file.
        backbone: maps B x C x H x W to B x F; on `device`.
        inputs: what it expects of its images.
        trained_on: fingerprint of the data set that it was trained on; None if not known.
        linear_stream: names of the random stream of the probe at the end of its run.
        device: where it computes.
        batch_size: images in a forward pass.
        state_digest: of the peer whose backbone it is, at its run's end; None if not known.
    """

    name: str
    backbone: nn.Module
    inputs: Inputs
    trained_on: str | None = None
    linear_stream: tuple[str, ...] = ("linear probe",)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    batch_size: int = 500
    state_digest: str | None = None

    def features(self, source: ImageSource) -> FrozenFeatures:
        """Returns the features of every image of `source`, resized and normalised for this encoder.

        Raises:
            DataError: the images can't be adapted.
            EvaluationError: a feature is not finite.
        """
        inputs = self.inputs
        return extract_features(
            self.backbone,
            adapted(source, inputs.image_size, len(inputs.mean)),
            lambda images: normalise(images, inputs.mean, inputs.std),
            batch_size=self.batch_size,
            device=self.device,
        )


class Subject:
    """An encoder on a data set; what protocols get. Keeps the features of both parts."""

    def __init__(self, encoder: Encoder, dataset: DataSet, seed: int) -> None:
        """Nothing is computed yet.

        Args:
            encoder: what is evaluated.
            dataset: on what.
            seed: of subsets and noise; without the encoder's name, so all encoders get the same.
        """
        self.encoder = encoder
        self.dataset = dataset
        self.seed = seed

    def on(self, dataset: DataSet) -> Subject:
        """Returns the same encoder on another data set."""
        return Subject(self.encoder, dataset, self.seed)

    def tell_if_enlarged(self) -> None:
        """Logs that the images are smaller than the encoder expects: detail can't be made up."""
        stored = self.dataset.train.images(torch.tensor([0])).shape[-1]
        expected = self.encoder.inputs.image_size
        if stored < expected:
            logger.warning(
                "the images of %s are %d px wide, and are enlarged to the %d px that %s expects; if the "
                "files have more, load them larger (image_size among the data set's options)",
                one_line(self.dataset.title, 80),
                stored,
                expected,
                self.encoder.name,
            )

    @property
    def num_classes(self) -> int:
        """Classes of the data set."""
        return self.dataset.num_classes

    @cached_property
    def train(self) -> FrozenFeatures:
        """Features of the training images, as they come."""
        return self.encoder.features(self.dataset.train)

    @cached_property
    def test(self) -> FrozenFeatures:
        """Features of the test images, as they come."""
        return self.encoder.features(self.dataset.test)

    @cached_property
    def standardiser(self) -> Standardiser:
        """Mean and deviation of the features of all training images; needs no label."""
        return Standardiser.of(self.train.features_NF)

    @cached_property
    def probe_train(self) -> FrozenFeatures:
        """Standardised features of the training images that have a label.

        Raises:
            DataError: none has.
        """
        return self.standardiser(self.train.labelled("probe, training"))

    @cached_property
    def probe_test(self) -> FrozenFeatures:
        """Standardised features of the test images that have a label.

        Raises:
            DataError: none has.
        """
        return self.standardiser(self.test.labelled("probe, test"))

    def generator(self, *names: str | int) -> torch.Generator:
        """Returns the random stream of this name; the same for every encoder on this data set."""
        return seeding.generator(self.seed, "evaluation", self.dataset.name, *names)
