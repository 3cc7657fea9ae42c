"""The per-run secret that every call carries."""

from __future__ import annotations

import hmac
import secrets

METADATA_KEY = "dogo-run-secret"


def new_secret() -> str:
    """Returns 256 random bits as hex."""
    return secrets.token_hex(32)


def is_same_secret(mine: str, theirs: str) -> bool:
    """Whether the two are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(mine.encode(), theirs.encode())
