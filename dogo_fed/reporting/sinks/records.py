"""Records as JSON objects and back: the dataclass fields plus "type"."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import get_type_hints

from dogo_fed.atomic import without_nan
from dogo_fed.contracts import Event, PeerResult, Record, RoundReport, StepReport
from dogo_fed.errors import CheckpointError

RECORD_TYPES: dict[str, type[Record]] = {
    "step": StepReport,
    "round": RoundReport,
    "result": PeerResult,
    "event": Event,
}
"""The value of "type" for each kind of record."""

_TYPE_NAMES = {record_type: name for name, record_type in RECORD_TYPES.items()}
_FLOAT_FIELDS = {
    record_type: frozenset(
        name for name, hint in get_type_hints(record_type).items() if hint is float
    )
    for record_type in RECORD_TYPES.values()
}


def record_to_json(record: Record) -> dict[str, object]:
    """Returns the record's fields with "type" in front; NaN and infinities become null."""
    fields = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    values = {name: without_nan(value) for name, value in fields.items()}
    return {"type": _TYPE_NAMES[type(record)], **values}


def record_from_json(entry: Mapping[str, object]) -> Record:
    """Returns the record that `entry` describes; null in a number's place becomes NaN.

    Raises:
        CheckpointError: the type is unknown, or the fields are not those of the type.
    """
    values = dict(entry)
    record_type = RECORD_TYPES.get(str(values.pop("type", None)))
    if record_type is None:
        raise CheckpointError(
            f"a record of type {entry.get('type')!r} is not one of {', '.join(RECORD_TYPES)}; "
            "was metrics.jsonl written by another version?"
        )
    for name in _FLOAT_FIELDS[record_type]:
        if name in values and values[name] is None:
            values[name] = math.nan
    try:
        return record_type(**values)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:  # a field, or a kind of event, that there is not
        raise CheckpointError(
            f"a {entry['type']} record does not have the expected fields ({error}); "
            "was metrics.jsonl written by another version?"
        ) from error
