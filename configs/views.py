"""Which views a peer draws where nobody has said it: those that suit its images.

Digits are not mirrored, and little of them is cropped away. Any other images have the views of
photographs. What a command line names stays, and so does what a preset names that was chosen there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from configs.overrides import path_of

LEFT_TO_THE_IMAGES = "usual"
"""The one preset of the group `peer` that does not mean its augmentation."""

_DIGITS = frozenset({"digits", "digits_m"})
_MADE_UP = frozenset({"synthetic"})
"""For tests and trials; these keep the views of the preset."""


def views_by_images(
    content: Mapping[str, Any], overrides: Iterable[str], *, peers_are_chosen: bool = True
) -> dict[str, str]:
    """Returns the augmentation of each peer that needs another one than it is composed with.

    Args:
        content: what the overrides compose to, as nested mappings.
        overrides: as on the command line.
        peers_are_chosen: whether `peers=` among them is somebody's choice; false if it stands there
            for want of one.
    """
    peers = content.get("peers")
    if not isinstance(peers, Mapping):
        return {}
    named = {
        name for override in overrides for name in _named_by(override, peers, peers_are_chosen)
    }
    found = {}
    for name, peer in peers.items():
        composed = peer.get("augmentation") if isinstance(peer, Mapping) else None
        if name in named or not isinstance(composed, Mapping):
            continue
        views = _views({_images(content.get("data")), _images(peer.get("data"))} - {None})
        if views is not None and composed.get("name") != views:
            found[str(name)] = views
    return found


def _named_by(override: str, peers: Iterable[str], peers_are_chosen: bool) -> Iterable[str]:
    """Returns the peers whose augmentation an override names."""
    path = path_of(override).split(".")
    if path[0] != "peers" or override.startswith("~"):
        return ()
    if len(path) > 2:
        return path[1:2] if path[2:] in (["augmentation"], ["augmentation", "name"]) else ()
    value = OverridesParser.create().parse_override(override).value()
    if isinstance(value, dict):
        by_peer: Mapping[str, Any] = value if len(path) == 1 else {path[1]: value}
        return [
            str(name)
            for name, settings in by_peer.items()
            if isinstance(settings, Mapping) and "augmentation" in settings
        ]
    if len(path) == 1:
        return peers if peers_are_chosen else ()
    return () if value == LEFT_TO_THE_IMAGES else path[1:]


def _images(data: object) -> str | None:
    """Returns the name of a data set, of an imbalanced one that of what it is made of."""
    if not isinstance(data, Mapping):
        return None
    name, options = data.get("name"), data.get("options")
    if name == "imbalanced" and isinstance(options, Mapping):
        name = options.get("base", name)
    return None if name is None else str(name)


def _views(images: Iterable[str | None]) -> str | None:
    """Returns the augmentation for these data sets; None leaves it as it is."""
    names = set(images)
    if names <= _DIGITS:
        return "digits"
    return None if names <= _DIGITS | _MADE_UP else "simclr"
