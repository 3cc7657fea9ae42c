"""The secret of a run, the credential of each peer that is derived from it, and their check.

The coordinator alone knows the run's secret. A peer is handed its own credential and no other, so
it can speak for itself only. From one credential neither the secret nor another credential can be
computed. A site's peer process checks the site's token in the same way.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from dogo_fed.contracts import PeerId

Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]

PEER_KEY = "dogo-peer"
"""The metadata under which a call to the coordinator names the peer that makes it."""

CREDENTIAL_KEY = "dogo-credential"
"""The metadata under which a call to the coordinator carries that peer's credential."""


def credential_of(secret: str, run_id: str, peer: str) -> str:
    """Returns the credential of a peer in a run: HMAC-SHA256 under the run's secret, as hex."""
    parts = [b"dogo-fed peer", run_id.encode(), peer.encode()]
    framed = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    return hmac.new(secret.encode(), framed, hashlib.sha256).hexdigest()


def metadata_of(peer: str, credential: str) -> tuple[tuple[str, str], ...]:
    """Returns the metadata of this peer's calls."""
    return ((PEER_KEY, peer), (CREDENTIAL_KEY, credential))


def speaker(credentials: Mapping[PeerId, str], metadata: Metadata | None) -> PeerId | None:
    """Returns the peer whose name and credential the metadata of a call carries, or None.

    Args:
        credentials: of all peers of the run.
        metadata: of the call.
    """
    carried = dict(metadata or ())
    name, theirs = carried.get(PEER_KEY, ""), carried.get(CREDENTIAL_KEY, "")
    if not isinstance(name, str) or not isinstance(theirs, str):
        return None
    peer = PeerId(name)
    # For a name that there is not, something is compared as well: the time tells nothing.
    is_right = is_same_secret(credentials.get(peer, new_secret()), theirs)
    return peer if is_right and peer in credentials else None


def is_carried(secret: str, key: str, metadata: Metadata | None) -> bool:
    """Whether the metadata of a call has the secret under this key."""
    theirs = dict(metadata or ()).get(key, "")
    return isinstance(theirs, str) and is_same_secret(secret, theirs)


def new_secret() -> str:
    """Returns 256 random bits as hex."""
    return secrets.token_hex(32)


def is_same_secret(mine: str, theirs: str) -> bool:
    """Whether the two are equal; how long it takes does not tell where they differ."""
    return hmac.compare_digest(mine.encode(), theirs.encode())
