"""What every process of a run must agree on, as named values that can be compared and told apart.

A peer sends its agreement when it joins. The coordinator compares it with its own. If they differ,
it refuses the peer, and names what differs with both values. `config` declares for each setting
whether it is agreed on. A peer's own settings (backbone, objective, augmentation, optimizer,
weights) are not agreed on, and the agreement does not hold them. Yet the coordinator learns the
backbone with its options, and the name of the objective: they are part of the peer's last report
(`PeerResult`). The options of a data set are not agreed on, because its folder may be anywhere; its
fingerprint is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dogo_fed.contracts import PROTOCOL_VERSION
from dogo_fed.packages import source_digest
from dogo_fed.plain import to_plain
from dogo_fed.scope import settings_of
from dogo_fed.text import one_line

if TYPE_CHECKING:
    from dogo_fed.config import RunConfig
    from dogo_fed.data.source import DataSet

_MAX_NAMED_DIFFERENCES = 5


def make_agreement(
    config: RunConfig, dataset: DataSet, cut_from: DataSet | None = None
) -> dict[str, str]:
    """Returns the values, by name, that all processes of a run must share.

    Args:
        config: the run's settings, fitted to its images.
        dataset: the images that all peers share. Of private ones nothing is agreed on, unless every
            process cuts them from one data set.
        cut_from: what every process cuts the private images from, where that is another data set
            than the anchors are from.
    """
    settings = {
        setting.path: _text(setting.value)
        for setting in settings_of(config)
        if setting.scope.is_agreed
    }
    settings["peers"] = ",".join(sorted(config.peers))
    joined = "\n".join(f"{key}={settings[key]}" for key in sorted(settings))
    return {
        "protocol_version": str(PROTOCOL_VERSION),
        "source_digest": source_digest(),
        "configuration_hash": hashlib.blake2b(joined.encode(), digest_size=16).hexdigest(),
        "data_fingerprint": dataset.fingerprint,
        "data_size": str(len(dataset.train)),
        **({} if cut_from is None else {"cut_fingerprint": cut_from.fingerprint}),
        "share_of_anchors": str(config.share_of_anchors),
        **{f"config.{key}": value for key, value in settings.items()},
    }


def differences(
    mine: Mapping[str, str], theirs: Mapping[str, str], *, my_name: str, their_name: str
) -> list[str]:
    """Returns one phrase for each value that differs, for the first five; empty if none does.

    The hash of the configuration is left out where a setting says more.
    """
    keys = [key for key in sorted({*mine, *theirs}) if mine.get(key) != theirs.get(key)]
    if any(key.startswith("config.") for key in keys):
        keys = [key for key in keys if key != "configuration_hash"]
    phrases = [
        f"{one_line(key.removeprefix('config.'), 80)} is {_shown(theirs.get(key))} at {their_name} and "
        f"{_shown(mine.get(key))} at {my_name}"
        for key in keys
    ]
    if len(phrases) > _MAX_NAMED_DIFFERENCES:
        left_out = len(phrases) - _MAX_NAMED_DIFFERENCES
        phrases = [*phrases[:_MAX_NAMED_DIFFERENCES], f"and {left_out} more differ"]
    return phrases


def _text(value: object) -> str:
    """Returns a value as text; the text of a teaching graph does not depend on its order."""
    if not isinstance(value, Mapping):
        return str(to_plain(value))
    edges = [(learner, *edge) for learner in value for edge in value[learner].items()]
    return ",".join(
        f"{learner}<-{teacher}:{weight!r}" for learner, teacher, weight in sorted(edges)
    )


def _shown(value: str | None) -> str:
    return "missing" if value is None else one_line(value, 80)
