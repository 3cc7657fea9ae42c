"""The checks before a run starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from dogo_fed import layout
from dogo_fed.baselines.catalog import make_baseline
from dogo_fed.config import Host, Precision, RunConfig
from dogo_fed.config.without_effect import without_effect
from dogo_fed.data.labels import why_no_accuracy
from dogo_fed.data.nearly_black import nearly_black
from dogo_fed.data.partition import Cut
from dogo_fed.data.source import DataSet
from dogo_fed.engine.fastest import with_fastest
from dogo_fed.engine.loaded_run import LoadedRun, load_run
from dogo_fed.engine.numerics import check_compiler, failed_compiling_told, resolve_device
from dogo_fed.engine.peer import Peer
from dogo_fed.engine.trial import try_own_code
from dogo_fed.errors import ConfigError
from dogo_fed.reporting.units import human_bytes
from dogo_fed.wire.traffic import RunTraffic


def notes_of(run: LoadedRun) -> tuple[str, ...]:
    """Returns what a user should know about the images of a run, a sentence each.

    What else there is to know about a peer's private images goes into its own log, see `open_session`.
    """
    images = run.data.shared if run.cut is None else run.data.evaluated
    notes = [*run.notes, *images.notes]
    if run.cut is not None:
        notes += run.cut.anchors.notes
    if run.config.anchors is None:  # a manifest does not say how the images look
        notes += nearly_black(run.data.shared, run.config.data.options)
    for peer in run.peer_ids:
        notes += run.nearly_black(peer)
    notes += without_effect(run.config, run.plan.steps_per_round)
    notes += _smaller_passes(run.config)
    reasons: dict[str, list[str]] = {}
    for peer in sorted(run.here):
        reason = why_no_accuracy(run.data_of(peer).evaluated)
        if reason is not None:
            reasons.setdefault(reason, []).append(peer)
    for reason, peers in reasons.items():
        of = "" if len(peers) == len(run.peer_ids) else f" of {', '.join(peers)}"
        notes.append(
            f"no kNN and no linear probe{of}: {reason}; the health of the features is told"
        )
    if run.cut is not None:
        notes.append(_told_cut(run.cut))
    return tuple(notes)


def _smaller_passes(config: RunConfig) -> Iterator[str]:
    """Yields a note about the peers without private images, where passes have room for some."""
    without = [name for name in config.peers if not config.has_private(name)]
    if config.share_of_anchors == 1.0 or not without or config.leaves_images_to_sites:
        return
    held = f"a pass holds {config.anchors_per_step} anchors"
    if len(without) == len(config.peers):
        yield (
            f"no peer has private images, so {held} and nothing else, with batch_size="
            f"{config.batch_size} and anchor_share={config.share_of_anchors:g}; name some by "
            "peers.<name>.data or partition=, or leave out anchor_share"
        )
    else:
        yield (
            f"{', '.join(without)} without private images: {held} there, and {config.batch_size} images "
            "elsewhere"
        )


def traffic_of(run: LoadedRun) -> str | None:
    """Returns what the run's distributions will take, as a sentence; None if nothing travels."""
    traffic = RunTraffic.of(run.config, run.plan)
    if traffic is None or run.config.host is Host.LOCAL:
        return None
    untaught = [name for name in run.peer_ids if name not in traffic.learners]
    but = f"; {', '.join(untaught)} without a teacher: nothing comes back" if untaught else ""
    return (
        f"each peer sends {traffic.exchanges:,} distributions of {human_bytes(traffic.each)}, which is "
        f"{human_bytes(traffic.sent)}, and receives as much{but}"
    )


def _told_cut(made: Cut) -> str:
    sizes = ", ".join(f"{name} {len(part.train)}" for name, part in sorted(made.private.items()))
    return (
        f"the data set is cut into {len(made.anchors.train)} anchors, which all peers see, and private "
        f"images: {sizes} ({layout.PARTITION})"
    )


def prepare(
    config: RunConfig,
    *,
    dataset: DataSet | None = None,
    backbones: Mapping[str, nn.Module] | None = None,
) -> LoadedRun:
    """Loads the data set and checks that every peer can be built, and trained if it is one's own.

    Args:
        config: the run.
        dataset: in place of the one that `config.data` names.
        backbones: peer name to a module in place of the one that the peer's settings name.

    Raises:
        ConfigError: a setting is impossible, alone or with this data set or on this machine, or the
            peers do not go with the baseline.
        OwnCodeError: code of the user's own has failed.
        DataError: the data set is missing or broken.
    """
    backbones = dict(backbones or {})
    strangers = sorted(set(backbones) - set(config.peers))
    if strangers:
        raise ConfigError(
            f"there is a backbone for {strangers[0]!r}, but no such peer; the peers are "
            f"{', '.join(config.peers)}"
        )
    here = None if config.are_all_here else ()  # private images of others are at their places
    run = load_run(config, dataset, backbones, peers=here, is_to_start=True)
    is_known = config.host in (Host.LOCAL, Host.PROCESSES) or config.device == "cpu"
    if is_known:  # elsewhere, each peer's own node decides
        run.check_device(resolve_device(config.device))
    if config.compile and config.are_all_here:
        check_compiler(resolve_device(config.device))
    notices: list[str] = []
    peers: list[Peer] = []
    for peer_id in run.peer_ids:
        goes_on = config.resume is not None and not config.afresh
        peer = run.build_peer(peer_id, torch.device("cpu"), goes_on=goes_on)
        peers += [peer] if config.baseline is not None else []
        notices += (f"peer {peer_id}: {notice}" for notice in peer.notices)
        if config.anchors is None:
            try_own_code(run, peer)
    if config.baseline is not None:
        make_baseline(run, peers)
    run = dataclasses.replace(run, weights_notes=tuple(notices))
    if config.precision is not Precision.AUTO:
        return run
    with failed_compiling_told():
        return with_fastest(run)
