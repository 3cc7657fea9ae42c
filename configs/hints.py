"""Which setting is meant by a word that is none, by the settings that there are."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from configs.groups import names_of, options_of
from dogo_fed.components import did_you_mean
from dogo_fed.text import some_of

_OUTPUT = ("run_dir", "out")
_OPTION = "data.options."
_IMAGE_SIZE = (f"{_OPTION}image_size",)
_GPUS_ARE_CHOSEN_OUTSIDE = (
    "the GPUs that a process sees are chosen in front of the command: CUDA_VISIBLE_DEVICES={value}"
)
_NO_WORKERS = (
    "none is needed: images are decoded before the run, or by as many threads as there are cores"
)

_MEANS: Mapping[str, tuple[str, ...]] = {
    "arch": ("backbone", "peers"),
    "augment": ("peers.*.augmentation",),
    "batch": ("batch_size",),
    "bs": ("batch_size",),
    "checkpoint": ("peers.*.init",),
    "ckpt": ("checkpoint", "peers.*.init"),
    "dataset": ("data",),
    "encoder": ("backbone", "peers"),
    "epoch": ("rounds",),
    "epochs": ("rounds",),
    "expname": _OUTPUT,
    "gpus": ("ray.gpus_per_peer",),
    "imagesize": _IMAGE_SIZE,
    "imgsize": _IMAGE_SIZE,
    "imgsz": _IMAGE_SIZE,
    "inputsize": _IMAGE_SIZE,
    "iterations": ("steps",),
    "learningrate": ("peers.*.optimizer.options.lr",),
    "loss": ("peers.*.objective",),
    "lr": ("peers.*.optimizer.options.lr",),
    "lrschedule": ("peers.*.optimizer.schedule",),
    "maxepochs": ("rounds",),
    "maxsteps": ("steps",),
    "method": ("methods", "peers.*.objective"),
    "mixedprecision": ("precision",),
    "model": ("backbone", "peers"),
    "models": ("backbone", "peers"),
    "name": _OUTPUT,
    "numepochs": ("rounds",),
    "numgpus": ("ray.gpus_per_peer",),
    "numthreads": ("threads_per_peer", "threads"),
    "optim": ("peers.*.optimizer",),
    "out": _OUTPUT,
    "outdir": _OUTPUT,
    "output": _OUTPUT,
    "outputdir": _OUTPUT,
    "resolution": _IMAGE_SIZE,
    "resume": ("run",),
    "run": ("resume",),
    "runname": _OUTPUT,
    "savedir": _OUTPUT,
    "scheduler": ("peers.*.optimizer.schedule",),
    "size": _IMAGE_SIZE,
    "stepsperepoch": ("steps_per_round",),
    "temperature": ("peers.*.objective.options.temperature",),
    "threads": ("threads_per_peer",),
    "threadsperpeer": ("threads",),
    "transforms": ("peers.*.augmentation",),
    "valsplit": ("eval.test_share",),
    "wd": ("peers.*.optimizer.options.weight_decay",),
    "weights": ("checkpoint", "peers.*.init"),
}
"""Squeezed words to the settings that they may mean, of which the first that exists counts.

"*" stands for every peer. The value is passed on as it is.
"""

_NO_SETTING: Mapping[str, str] = {
    "deviceids": _GPUS_ARE_CHOSEN_OUTSIDE,
    "gpu": _GPUS_ARE_CHOSEN_OUTSIDE,
    "gpuid": _GPUS_ARE_CHOSEN_OUTSIDE,
    "gpuids": _GPUS_ARE_CHOSEN_OUTSIDE,
    "numworkers": _NO_WORKERS,
    "workers": _NO_WORKERS,
    "pretrained": ("backbones start untrained, or from a file: peers.<name>.init=<weights file>"),
}
"""Squeezed words for which there is no setting, with the reason."""

_OF_A_PEER = re.compile(r"peers\.(?P<peer>[^.]+)\.(?P<setting>.+)")
_CLOSE = 0.7
"""How alike two words are, from 0 to 1, if one may be a misspelt other."""
_MOST_PEERS = 6


@dataclass(frozen=True, slots=True)
class Hint:
    """What to say about a word that is no setting.

    Attributes:
        typed: what to type for it; empty if that is not certain.
        text: how a sentence about it goes on, e.g. "; type rounds=3"; may be empty.
    """

    typed: str = ""
    text: str = ""


def is_word(key: str) -> bool:
    """Whether this is a word that people have for a setting, or for what needs none."""
    return _squeezed(key) in _MEANS or _squeezed(key) in _NO_SETTING


def hint_for(
    key: str,
    value: str | None,
    known: Mapping[str, object],
    words: Mapping[str, str] = MappingProxyType({}),
) -> Hint:
    """Returns which setting to type for one that does not exist.

    Args:
        key: what was typed, e.g. "lr" or "peers.wide.lr". It may be a setting, typed as a flag.
        value: its value; None if it had none.
        known: the settings that there are by what was chosen, with their values.
        words: what stands in this command for a setting of a run.
    """
    known = {**known, **dict.fromkeys(words.values())}
    word = _squeezed(key.rpartition(".")[2])
    sure = [key] if key in known else _meant(key, known) or _with_the_same_end(key, known)
    typed = _typed(key, value, sure, known, words)
    if len(typed) == 1:
        return Hint(typed[0], f"; type {typed[0]}")
    if not typed and word in _NO_SETTING:
        return Hint(text=f"; {_NO_SETTING[word].format(value=value or '<number>')}")
    typed = typed or _typed(key, value, _alike(key, known), known, words)
    if typed:
        return Hint(text=did_you_mean(typed[:3]))
    given = "<value>" if value is None else value
    return Hint(
        text=_of_other_data(key, given, known)
        or _of_the_peers(key, known)
        or _of_a_protocol(key, given, known)
    )


def _squeezed(word: str) -> str:
    """Returns a word without what people write in different ways."""
    return re.sub(r"[-_]", "", word.lower())


def _meant(key: str, known: Iterable[str]) -> list[str]:
    """Returns the settings that a word means, wherever it stands but in a section of ours."""
    above, _, last = key.rpartition(".")
    section = key.partition(".")[0]
    is_ours = above and any(setting.startswith(f"{section}.") for setting in known)
    if is_ours and section not in ("peers", "data"):
        return []
    peer = re.match(r"peers\.([^.]+)\.", key)
    whose = r"[^.]+" if peer is None else re.escape(peer[1])
    for target in _MEANS.get(_squeezed(last), ()):
        pattern = re.compile(re.escape(target).replace(r"\*", whose))
        found = [setting for setting in known if pattern.fullmatch(setting)]
        if found:
            return found
    return []


def _with_the_same_end(key: str, known: Iterable[str]) -> list[str]:
    """Returns the settings with this last part, below what stands above it; of these the highest."""
    parts = [_squeezed(part) for part in key.split(".")]
    found = []
    for setting in known:
        others = [_squeezed(part) for part in setting.split(".")]
        rest = iter(others)
        if others[-1] == parts[-1] and all(part in rest for part in parts):
            found.append(setting)
    highest = min((setting.count(".") for setting in found), default=0)
    return [setting for setting in found if setting.count(".") == highest]


def _alike(key: str, known: Iterable[str]) -> list[str]:
    """Returns the settings that are written nearly so, the nearest first.

    What stands above must be alike as well, if something does. Of a peer that is there only its own
    settings count.
    """
    above, _, last = key.rpartition(".")
    ranked = []
    peer = ".".join(key.split(".")[:2]) + "."
    of_the_peer = [setting for setting in known if setting.startswith(peer)]
    for setting in of_the_peer if key.startswith("peers.") and of_the_peer else known:
        its_above, _, its_last = setting.rpartition(".")
        likeness = _likeness(last, its_last)
        if above:
            likeness = min(likeness, _likeness(above, its_above))
        if likeness >= _CLOSE:
            ranked.append((-likeness, setting.count("."), setting))
    ranked.sort()
    at_the_top = [] if above else [setting for _, depth, setting in ranked if depth == 0]
    return at_the_top or [setting for *_, setting in ranked]


def _likeness(word: str, other: str) -> float:
    return difflib.SequenceMatcher(None, word, other).ratio()


def _typed(
    key: str,
    value: str | None,
    settings: Sequence[str],
    known: Mapping[str, object],
    words: Mapping[str, str],
) -> list[str]:
    """Returns what to type for these settings; one that several peers have is there once."""
    found: dict[str, list[str]] = {}
    for setting in settings:
        given = value if value is not None else _example(known[setting])
        peer = None if key.startswith("peers.") else _OF_A_PEER.fullmatch(setting)
        if peer is None:
            found[f"{words.get(setting, setting)}={given}"] = []
        else:
            found.setdefault(f"peers.<name>.{peer['setting']}={given}", []).append(peer["peer"])
    return [_with_peers(text, peers) for text, peers in found.items()]


def _with_peers(text: str, peers: Sequence[str]) -> str:
    """Returns what to type for a setting of these peers, which has <name> for theirs."""
    if len(peers) == 1:
        return text.replace("<name>", peers[0], 1)
    names = f", with the peer's name: {some_of(peers, _MOST_PEERS)}" if peers else ""
    return f"{text}{names}"


def _example(usual: object) -> str:
    """Returns what to write for a value that was not given."""
    return "true" if isinstance(usual, bool) else "<value>"


def _of_other_data(key: str, value: str, known: Mapping[str, object]) -> str:
    """Returns which data sets have an option that the one at hand has not; empty if none has."""
    above, _, option = key.rpartition(".")
    if above not in ("", "data", "data.options") or "data" not in known:
        return ""
    if _MEANS.get(_squeezed(option)) == _IMAGE_SIZE:
        option = _IMAGE_SIZE[0].removeprefix(_OPTION)
    have = [data for data in names_of("data") if option in options_of(data)]
    if not have:
        return ""
    name = known.get("data.name")
    why = "no data set is named" if name is None else f"the data set {name} has none"
    of_a_path = "data=/path/to/images, or another of " if "image_folder" in have else "one of data="
    return f": {why}. With {of_a_path}{', '.join(have)}, it is {_OPTION}{option}={value}"


def _of_the_peers(key: str, known: Iterable[str]) -> str:
    """Returns which peers there are, if the key names another one; else an empty text."""
    named = re.match(r"peers\.([^.]+)", key)
    peers = dict.fromkeys(match["peer"] for one in known if (match := _OF_A_PEER.match(one)))
    if named is None or named[1] in peers or not peers:
        return ""
    return f": there is no peer {named[1]!r}, the peers are {', '.join(peers)}"


def _of_a_protocol(key: str, value: str, known: Iterable[str]) -> str:
    """Returns how an option of a protocol is set that was not chosen, else an empty text."""
    protocol, _, option = key.removeprefix("protocol.").rpartition(".")
    if "protocol" not in known or protocol not in names_of("protocol"):
        return ""
    return f"; type protocol={protocol} protocol.{protocol}.{option}={value}"
