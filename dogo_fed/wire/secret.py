"""The secret that every call carries, and its check.

The coordinator checks the run's secret; a site's peer process checks the site's token.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable

METADATA_KEY = "dogo-run-secret"
"""The metadata under which a call to the coordinator carries the run's secret."""


def is_carried(secret: str, key: str, metadata: Iterable[tuple[str, str | bytes]] | None) -> bool:
    """Whether the metadata of a call has the secret under this key."""
    theirs = dict(metadata or ()).get(key, "")
    return isinstance(theirs, str) and is_same_secret(secret, theirs)


def new_secret() -> str:
    """Returns 256 random bits as hex."""
    return secrets.token_hex(32)


def is_same_secret(mine: str, theirs: str) -> bool:
    """Whether the two are equal; how long it takes does not tell where they differ."""
    return hmac.compare_digest(mine.encode(), theirs.encode())
