"""`peers.*.x=y`: a setting of every peer, as one for each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from configs.overrides import path_of

EVERY_PEER = "peers.*."


def is_of_every_peer(override: str) -> bool:
    """Whether an override sets something of every peer."""
    return path_of(override).startswith(EVERY_PEER)


def for_each_peer(overrides: Sequence[str], peers: Iterable[str]) -> list[str]:
    """Returns the overrides, in which those of every peer are spelled out.

    Args:
        overrides: as on the command line.
        peers: their names.
    """
    names = list(peers)
    spelled: list[str] = []
    for override in overrides:
        if is_of_every_peer(override):
            spelled += [override.replace(EVERY_PEER, f"peers.{name}.", 1) for name in names]
        else:
            spelled.append(override)
    return spelled
