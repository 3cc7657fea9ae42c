"""What a run uses data sets for: three roles, which may be one data set or several.

Where every peer sees the same images, one data set plays all three roles. A peer with private
images shares only the anchors.
"""

# N = images of the step's pass, P = those that the loss sees, C, H, W = channels and pixels

from __future__ import annotations

from dataclasses import dataclass

import torch

from dogo_fed.data.source import DataSet


@dataclass(frozen=True, slots=True)
class DataRoles:
    """The data sets of one peer's process.

    Attributes:
        shared: what all peers look at together. Its training images define the batches, and its
            fingerprint is agreed on.
        own: what this peer trains on for itself. Image size, channels and normalisation are its. The
            same as `shared` if the peer has no private images.
        evaluated: whose training images are the bank of kNN and probe, and whose test images are counted.
    """

    shared: DataSet
    own: DataSet
    evaluated: DataSet

    @classmethod
    def all_of(cls, dataset: DataSet) -> DataRoles:
        """Returns one data set in all three roles."""
        return cls(dataset, dataset, dataset)


@dataclass(frozen=True, slots=True)
class StepImages:
    """The images of one pass.

    Attributes:
        images_NCHW: uint8; private images first, then shared ones, in one batch.
        labels_P: classes of the images that the loss sees, for objectives that use them.
        own: rows that the peer's own loss sees; None is all of them.
        shared: rows whose similarities are published and learned with; None is all of them.
    """

    images_NCHW: torch.Tensor
    labels_P: torch.Tensor | None = None
    own: slice | None = None
    shared: slice | None = None
