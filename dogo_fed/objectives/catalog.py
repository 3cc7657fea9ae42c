"""The objectives that have a short name; any other is named by its import path."""

from __future__ import annotations

OF_BASELINES = {
    "fedx": "dogo_fed.baselines.fedx:FedXObjective",
}
"""Those that only a baseline trains with."""

OBJECTIVES = {
    "barlow_twins": "dogo_fed.objectives.barlow_twins:BarlowTwins",
    "byol": "dogo_fed.objectives.byol:BYOL",
    "moco_v2": "dogo_fed.objectives.moco_v2:MoCoV2",
    "moco_v3": "dogo_fed.objectives.moco_v3:MoCoV3",
    "simclr": "dogo_fed.objectives.simclr:SimCLR",
    "simsiam": "dogo_fed.objectives.simsiam:SimSiam",
    "supervised": "dogo_fed.objectives.supervised:Supervised",
    "vicreg": "dogo_fed.objectives.vicreg:VICReg",
}

KNOWN = OBJECTIVES | OF_BASELINES
"""All that a setting may name."""
