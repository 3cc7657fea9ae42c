"""Settings that change nothing, given the others.

Who sets one of them expects something of it. So a run says it, and a comparison refuses a variant
that differs from DoGo by nothing else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from dogo_fed.config.exchange import Encoding, Rows
from dogo_fed.config.partition import PartitionKind
from dogo_fed.config.peer import Teacher
from dogo_fed.config.run import AnchorsAt, RunConfig
from dogo_fed.objectives.base import num_chunks


def without_effect(config: RunConfig, steps_per_round: int | None = None) -> Iterator[str]:
    """Yields a sentence for each setting that was given and changes nothing.

    Args:
        config: the run.
        steps_per_round: of its plan, which may depend on the images; None if that is not known.
    """
    if config.exchanges:
        yield from _of_the_exchange(config, steps_per_round)
        yield from _of_the_teaching(config)
    elif config.baseline is None:
        yield from _of_no_exchange(config)
    yield from _of_the_passes(config)
    yield from _of_the_images(config)


def _of_the_exchange(config: RunConfig, steps_per_round: int | None) -> Iterator[str]:
    exchange = config.exchange
    if _is_given(exchange, "top_k") and exchange.encoding is not Encoding.TOP_K:
        yield (
            f"exchange.top_k has no effect: exchange.encoding={exchange.encoding.value} sends whole rows"
        )
    weighs_rare = any(peer.rare_distill_weight is not None for peer in config.peers.values())
    if _is_given(exchange, "dense_steps") and exchange.every_steps == 1 and not weighs_rare:
        yield "exchange.dense_steps has no effect: with exchange.every_steps=1 all steps exchange"
    if _all_steps_are_dense(config) and _is_given(exchange, "every_steps"):
        yield (
            f"exchange.every_steps has no effect: exchange.dense_steps={exchange.dense_steps} is the "
            "whole run"
        )
    if exchange.lookahead and 1 in (steps_per_round, config.steps_per_round, config.steps):
        yield (
            "exchange.lookahead has no effect: at the end of a round all answers are waited for, and "
            "these rounds have one step; make steps_per_round larger"
        )
    if _is_given(exchange, "weighting") and _most_teachers(config) < 2:
        yield "exchange.weighting has no effect: no peer has two teachers to weigh against each other"


def _most_teachers(config: RunConfig) -> int:
    """Returns how many teachers a peer has at most."""
    graph = config.exchange.graph
    if graph is None:
        return len(config.peers) - 1
    return max(sum(weight > 0 for weight in teachers.values()) for teachers in graph.values())


def _of_no_exchange(config: RunConfig) -> Iterator[str]:
    """Yields what is about an exchange, of which there is none; a baseline may use it."""
    about = ["lookahead", "symmetric", "graph", "weighting", "encoding", "top_k"]
    if config.anchors_at is AnchorsAt.EVERY_STEP:
        about += ["every_steps", "dense_steps"]
    names = [f"exchange.{name}" for name in about if _is_given(config.exchange, name)]
    names += [f"peers.{name}.gate" for name, one in config.peers.items() if _is_given(one, "gate")]
    for name in names:
        yield f"{name} has no effect: no peer learns from another here (exchange.enabled=false)"


def _of_the_passes(config: RunConfig) -> Iterator[str]:
    whole = config.batch_size
    for name, peer in config.peers.items():
        if whole is None or peer.chunk_size is None:
            continue
        least, rest = divmod(whole, peer.data_parallel)
        if num_chunks(least + (rest > 0), peer.chunk_size, least) == 1:
            shared = f" in {peer.data_parallel} parts" if peer.data_parallel > 1 else ""
            yield (
                f"peers.{name}.chunk_size has no effect: a pass has {whole} images{shared}, which is one "
                f"chunk{' each' if shared else ''}"
            )


def _of_the_teaching(config: RunConfig) -> Iterator[str]:
    used, other = "kl_temperature", "features_temperature"
    if config.exchange.rows is Rows.FEATURES:
        used, other = other, used
    rows = "null" if config.exchange.rows is None else config.exchange.rows.value
    for name, peer in config.peers.items():
        if _is_given(peer, other):
            yield (
                f"peers.{name}.{other} has no effect: exchange.rows={rows} has the temperature "
                f"peers.{name}.{used}"
            )
        if peer.rare_distill_weight is not None and _all_steps_are_dense(config):
            yield (
                f"peers.{name}.rare_distill_weight has no effect: it is that of the exchanges after "
                f"exchange.dense_steps={config.exchange.dense_steps}, which is the whole run"
            )
        elif peer.rare_distill_weight is not None and config.exchange.dense_steps == 0:
            yield (
                f"peers.{name}.distill_weight has no effect: with exchange.dense_steps=0 all exchanges "
                f"have peers.{name}.rare_distill_weight"
            )
        if _is_given(peer, "teacher_momentum") and peer.teacher is not Teacher.EMA:
            yield (
                f"peers.{name}.teacher_momentum has no effect: it is that of peers.{name}.teacher=ema"
            )


def _of_the_images(config: RunConfig) -> Iterator[str]:
    partition = config.partition
    kind = f"partition={partition.kind.value}"
    if not partition.is_private:
        cutting = ("anchors", "alpha", "classes_per_peer", "least_images")
        for name in [name for name in cutting if _is_given(partition, name)]:
            yield f"partition.{name} has no effect: {kind} cuts nothing into private images"
    else:
        for name, of in (
            ("alpha", PartitionKind.DIRICHLET),
            ("classes_per_peer", PartitionKind.CLASSES),
        ):
            if _is_given(partition, name) and partition.kind is not of:
                yield f"partition.{name} has no effect: it is that of partition={of.value}"
    if _is_given(config, "anchors_at"):
        if not (any(map(config.has_private, config.peers)) or config.leaves_images_to_sites):
            yield "anchors_at has no effect: no peer has private images, so all images are shared"
        elif config.exchange.every_steps == 1:
            yield "anchors_at has no effect: with exchange.every_steps=1 all steps exchange"


def _all_steps_are_dense(config: RunConfig) -> bool:
    """Whether the run ends before its dense steps do, as far as its settings tell its length."""
    steps = config.steps
    if steps is None and config.rounds is not None and config.steps_per_round is not None:
        steps = config.rounds * config.steps_per_round
    return steps is not None and config.exchange.dense_steps >= steps


def _is_given(settings: Any, name: str) -> bool:
    """Whether a setting is not at its default."""
    (default,) = [one.default for one in dataclasses.fields(settings) if one.name == name]
    return bool(getattr(settings, name) != default)
