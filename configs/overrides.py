"""An override of Hydra as text: what it sets, and how a value is written so that Hydra reads it."""

from __future__ import annotations

from hydra.core.override_parser.types import Quote, QuotedString


def key_of(override: str) -> str:
    """Returns the key of an override, without "+" or "~" in front of it."""
    return override.lstrip("+~").partition("=")[0]


def path_of(override: str) -> str:
    """Returns the path of what an override sets; a choice `group@path=name` sets what is there."""
    return key_of(override).rpartition("@")[2]


def quoted(key: str, value: str) -> str:
    """Returns the override that sets `key` to a text, whatever characters that has."""
    return f"{key}={QuotedString(value, Quote.single).with_quotes()}"
