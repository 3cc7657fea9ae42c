"""Numbers for people: sizes, durations, shares."""

from __future__ import annotations

import math

UNKNOWN = "-"
"""Shown where there is no number."""


def human_bytes(num_bytes: float) -> str:
    """Returns a size in binary units with three digits, e.g. "64.1 KiB"."""
    if not math.isfinite(num_bytes):
        return UNKNOWN
    size, unit = float(num_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1000:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.3g} {unit}"


def human_seconds(seconds: float) -> str:
    """Returns a duration in the two largest units, e.g. "3 h 07 min", "2 min 05 s", "4.2 s"."""
    if not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, whole_seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {whole_seconds:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def percent(share: float, digits: int = 1) -> str:
    """Returns a share between 0 and 1 as a percentage, e.g. "71.3 %"."""
    return f"{100 * share:.{digits}f} %" if math.isfinite(share) else UNKNOWN


def number(value: float, digits: int = 3) -> str:
    """Returns a number with this many decimals, or a dash if there is none."""
    return f"{value:.{digits}f}" if math.isfinite(value) else UNKNOWN
