"""Evaluation protocols: a frozen encoder in, scores out. One file each; `catalog.py` names them."""

from dogo_fed.evaluation.protocols.catalog import PROTOCOLS
from dogo_fed.evaluation.protocols.evaluate import (
    check_labels,
    check_protocol,
    complete_options,
    evaluate,
    protocol_title,
)

__all__ = [
    "PROTOCOLS",
    "check_labels",
    "check_protocol",
    "complete_options",
    "evaluate",
    "protocol_title",
]
