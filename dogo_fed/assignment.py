"""What a peer's process is told when it starts, as JSON: on standard input, or as an argument."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dogo_fed.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One peer's job.

    Attributes:
        config: the whole run's configuration as plain nested dicts, checked again by the peer.
        run_dir: absolute; on a cluster of several nodes it must be on storage that all of them see.
        address: of the coordinator; empty where messages carry the exchange.
        credential: with which this peer, and no other, may call the coordinator.
        is_tls: whether the coordinator shows a certificate.
        number: which start of this peer this is, from 0.
        checkpoint_step: the checkpoint that the peer goes on from; None is the beginning.
        lock: what the lock of the run folder says at the peer's start; empty if there is none.
        takes_newest: whether the peer goes on from its own newest checkpoint instead, because it
            has been in the run before.
    """

    peer: str
    run_id: str
    run_dir: str
    address: str
    credential: str
    checkpoint_step: int | None
    config: Mapping[str, Any]
    number: int = 0
    is_tls: bool = False
    takes_newest: bool = False
    lock: str = ""

    def to_json(self) -> str:
        """Returns the assignment as text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Assignment:
        """Returns the assignment.

        Raises:
            ConfigError: the text is no assignment.
        """
        try:
            assignment = cls(**json.loads(text))
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"this is no assignment of a peer: {error}") from error
        if not isinstance(assignment.config, dict):
            raise ConfigError("this is no assignment of a peer: its config is no mapping")
        return assignment
