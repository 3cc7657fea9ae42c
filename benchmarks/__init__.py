"""Benchmarks: figures with the command, the machine and the date that belong to them.

All of them can be imported where there is neither ray nor flwr, hydra, lightly or kornia. Importing
this package puts plain torch in the place of kornia if it is missing (`kornia_stand_in.py`).
"""

from __future__ import annotations

from benchmarks.kornia_stand_in import install_if_missing

install_if_missing()
