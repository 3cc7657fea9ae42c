"""How one data set is cut into shared images and private ones, to study sites on one machine."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from dogo_fed.config.checks import require, require_positive
from dogo_fed.config.data import OTHER_DATA, DataConfig
from dogo_fed.config.scopes import AGREED


class PartitionKind(enum.Enum):
    """How the images that are not shared are dealt out to the peers.

    SHARED: none are: every peer sees all images.
    IID: at random, in equal parts.
    DIRICHLET: each class in proportions drawn from a Dirichlet distribution (Hsu et al. 2019), so
        peers differ in their classes and in size.
    CLASSES: each peer has some of the classes.
    """

    SHARED = "shared"
    IID = "iid"
    DIRICHLET = "dirichlet"
    CLASSES = "classes"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionConfig:
    """A cut of the run's data set into an anchor set, which all peers share, and private images.

    Attributes:
        kind: how the private images are dealt out.
        anchors: share of the training images that are anchors, drawn at random.
        anchors_from: another data set, of which the anchors are drawn; all images of the run's data
            set are private then.
        alpha: of the Dirichlet distribution; the smaller, the more the peers differ.
        classes_per_peer: with kind=classes.
        least_images: every peer gets at least so many.
    """

    kind: PartitionKind = field(default=PartitionKind.SHARED, metadata=AGREED)
    anchors: float = field(default=0.2, metadata=AGREED)
    anchors_from: DataConfig | None = field(default=None, metadata=OTHER_DATA)
    alpha: float = field(default=0.1, metadata=AGREED)
    classes_per_peer: int = field(default=2, metadata=AGREED)
    least_images: int = field(default=16, metadata=AGREED)

    def __post_init__(self) -> None:
        require_positive(
            "partition.",
            alpha=self.alpha,
            classes_per_peer=self.classes_per_peer,
            least_images=self.least_images,
        )
        if self.anchors_from is None:
            require(
                0.0 < self.anchors < 1.0,
                f"partition.anchors must be above 0 and below 1, not {self.anchors}",
            )
        else:
            require(
                self.is_private,
                f"partition.anchors_from={self.anchors_from.name} names anchors, but partition=shared "
                "cuts nothing into private images; add partition=dirichlet (or iid, classes)",
            )
            require(
                0.0 < self.anchors <= 1.0,
                f"partition.anchors must be above 0 and at most 1, not {self.anchors}",
            )

    @property
    def is_private(self) -> bool:
        """Whether peers get images that the others do not see."""
        return self.kind is not PartitionKind.SHARED
