"""The 15 common corruptions of Hendrycks and Dietterich (ICLR 2019), at five severities, our own way.

`docs/design/evaluation.md` says what differs from the published files. Lengths are shares of the
image's side, so the same severity looks alike at 32 and at 224 pixels.
"""

from dogo_fed.evaluation.corruptions.catalog import CORRUPTIONS, SEVERITIES
from dogo_fed.evaluation.corruptions.source import corrupt, corrupted

__all__ = ["CORRUPTIONS", "SEVERITIES", "corrupt", "corrupted"]
