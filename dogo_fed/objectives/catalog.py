"""The objectives that have a short name; any other is named by its import path."""

from __future__ import annotations

OBJECTIVES = {
    "simclr": "dogo_fed.objectives.simclr:SimCLR",
    "simsiam": "dogo_fed.objectives.simsiam:SimSiam",
    "supervised": "dogo_fed.objectives.supervised:Supervised",
}
