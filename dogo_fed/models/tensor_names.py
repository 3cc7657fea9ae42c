"""Under which names other projects keep a backbone's tensors: prefixes, and names of ResNets.

MoCo keeps its encoder as `module.encoder_q.`, solo-learn as `backbone.`, and so on. Our ResNets call
their parts stem and stages. torchvision, timm and most weights files call them conv1, bn1 and layer1 to
layer4. Some put the children of torchvision's network in a row, which numbers them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

Renaming: TypeAlias = Callable[[str], str]

AVOIDED = ("encoder_k", "momentum", "target", "teacher", "key_encoder", "ema")
"""Words in the names of copies that follow the encoder; the encoder itself is taken if both fit."""

_OURS = ((r"^stem\.0\.", "conv1."), (r"^stem\.1\.", "bn1."), (r"^head\.", "fc."))
_CHILDREN = ((r"^0\.", "conv1."), (r"^1\.", "bn1."))


def as_they_are(name: str) -> str:
    """Returns the name."""
    return name


def torchvision_from_ours(name: str) -> str:
    """Returns torchvision's name of a tensor of our ResNets; any other name as it is."""
    for pattern, theirs in _OURS:
        name = re.sub(pattern, theirs, name)
    return re.sub(r"^stages\.(\d)\.", lambda found: f"layer{int(found[1]) + 1}.", name)


def torchvision_from_children(name: str) -> str:
    """Returns torchvision's name of a tensor of a ResNet's children put in a row."""
    for pattern, theirs in _CHILDREN:
        name = re.sub(pattern, theirs, name)
    return re.sub(r"^([4-7])\.", lambda found: f"layer{int(found[1]) - 3}.", name)


_PAIRS: tuple[tuple[Renaming, Renaming], ...] = (
    (as_they_are, as_they_are),
    (torchvision_from_ours, as_they_are),
    (torchvision_from_ours, torchvision_from_children),
    (as_they_are, torchvision_from_ours),
    (as_they_are, torchvision_from_children),
)
"""How the backbone's names and the file's are both renamed, so that they can be compared."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How the names in a file fit those of a backbone.

    Attributes:
        prefix: what stands in front of them in the file.
        names: from the backbone's name to the file's, for those that are in both.
        strangers: names in the file after the prefix that the backbone does not have, as the file has
            them.
        is_renamed: whether they are called otherwise in the file.
    """

    prefix: str
    names: Mapping[str, str]
    strangers: tuple[str, ...]
    is_renamed: bool


def best_fit(wanted: Iterable[str], found: Iterable[str], prefix: str | None = None) -> Fit:
    """Returns the prefix and the renaming by which most names fit.

    Args:
        wanted: the backbone's names.
        found: the file's names.
        prefix: the prefix, if it is known; None looks for it.
    """
    wanted, found = list(wanted), list(found)
    fits = [
        _fit(wanted, found, candidate, ours, theirs)
        for ours, theirs in _PAIRS
        for candidate in (
            [prefix] if prefix is not None else _prefixes(wanted, found, ours, theirs)
        )
    ]
    return max(
        fits, key=lambda fit: (len(fit.names), not _is_avoided(fit.prefix), -len(fit.prefix))
    )


def _prefixes(
    wanted: Iterable[str], found: Iterable[str], ours: Renaming, theirs: Renaming
) -> list[str]:
    """Returns the prefixes after which at least one name fits; the empty one too."""
    known = {ours(name) for name in wanted}
    counted: Counter[str] = Counter([""])
    for name in found:
        for place in [0, *(dot.end() for dot in re.finditer(r"\.", name))]:
            if theirs(name[place:]) in known:
                counted[name[:place]] += 1
    return list(counted)


def _fit(
    wanted: Iterable[str], found: Iterable[str], prefix: str, ours: Renaming, theirs: Renaming
) -> Fit:
    known = {ours(name): name for name in wanted}
    names: dict[str, str] = {}
    strangers = []
    for name in found:
        if not name.startswith(prefix):
            continue
        mine = known.get(theirs(name.removeprefix(prefix)))
        if mine is None:
            strangers.append(name)
        else:
            names[mine] = name
    is_renamed = any(mine != name.removeprefix(prefix) for mine, name in names.items())
    return Fit(prefix, names, tuple(strangers), is_renamed)


def _is_avoided(prefix: str) -> bool:
    return any(word in prefix for word in AVOIDED)
