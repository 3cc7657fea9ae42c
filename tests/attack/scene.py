"""A target in a process of its own, and two honest peers that go on swapping while it is attacked."""

from __future__ import annotations

import functools
import json
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

import numpy as np
import psutil

from clients.peer.grpc_link import Connection, GrpcLink
from dogo_fed.contracts import PeerId, SimilarityDistribution, StepReport, Ticket
from dogo_fed.engine.loaded_run import LoadedRun, load_run
from tests.attack.target import configuration

STARTED_WITHIN_S = 120.0
ENDED_WITHIN_S = 180.0


class Target:
    """The attacked run. Entering starts it; `end` lets it end and tells how."""

    def __init__(
        self,
        folder: Path,
        *,
        descriptors: int | None = None,
        is_patient: bool = False,
        host: str = "processes",
    ) -> None:
        self.folder = folder
        self._descriptors = descriptors
        self._host = host
        self._arguments = [host, *(["patient"] if is_patient else [])]
        self._terminal = Path(f"{folder}.terminal")

    def __enter__(self) -> Target:
        command = [sys.executable, "-m", "tests.attack.target", str(self.folder), *self._arguments]
        limit = None
        if self._descriptors is not None:
            both = (self._descriptors, self._descriptors)
            limit = functools.partial(resource.setrlimit, resource.RLIMIT_NOFILE, both)
        with self._terminal.open("wb") as terminal:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=terminal,
                stderr=subprocess.STDOUT,
                preexec_fn=limit,
            )
        ready = Path(f"{self.folder}.ready.json")
        give_up_at_s = time.monotonic() + STARTED_WITHIN_S
        while not ready.exists():
            if self._process.poll() is not None or time.monotonic() > give_up_at_s:
                self._process.kill()
                raise AssertionError(f"the target did not start: {self.written()[-2000:]}")
            time.sleep(0.1)
        told = json.loads(ready.read_text())
        self.address: str = told["address"]
        self.run_id: str = told["run_id"]
        self.credentials: dict[str, str] = told["credentials"]
        self.run = load_run(configuration(self.folder, self._host))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(30)

    @property
    def peers(self) -> tuple[PeerId, ...]:
        """The honest peers, then the insider."""
        return self.run.peer_ids

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def link(self, peer: str) -> GrpcLink:
        """Returns a link of this peer with its own credential."""
        connection = Connection(
            address=self.address,
            credential=self.credentials[peer],
            wire=self.run.wire_format,
            answer_within_s=30.0,
            reconnect_s=20.0,
        )
        return GrpcLink(PeerId(peer), self.run_id, connection)

    def resident_bytes(self) -> int:
        """Returns the memory of the process."""
        return int(psutil.Process(self._process.pid).memory_info().rss)

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def written(self) -> str:
        """Returns all that the process has written to its log and its terminal."""
        log = self.folder / "coordinator.log"
        texts = [self._terminal.read_bytes(), log.read_bytes() if log.exists() else b""]
        return b"".join(texts).decode("utf-8", "replace")

    def folder_bytes(self) -> int:
        """Returns the size of everything that the run has written."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return sum(path.stat().st_size for path in files) + self._terminal.stat().st_size

    def end(self) -> None:
        """Ends the run as its launcher would.

        Raises:
            AssertionError: it did not end well, or left no summary or no picture.
        """
        assert self._process.stdin is not None
        self._process.stdin.close()
        status = self._process.wait(ENDED_WITHIN_S)
        assert status == 0, f"exit status {status}: {self.written()[-2000:]}"
        assert (self.folder / "curves.png").stat().st_size > 10_000
        summary = json.loads((self.folder / "summary.json").read_text())
        assert summary["run_id"] == self.run_id


class Honest:
    """Two peers that swap and report, each in a thread, until the block is left.

    Attributes:
        steps: steps that both have done.
        longest_s: the longest time that one of them took.
        error: what ended them before their time; None if nothing did.
    """

    def __init__(self, target: Target) -> None:
        self.steps = 0
        self.longest_s = 0.0
        self.error: BaseException | None = None
        self._is_over = threading.Event()
        self._target = target
        self._links = [target.link(peer) for peer in target.peers[:2]]
        self._threads = [
            threading.Thread(target=self._go_on, args=(number,), daemon=True) for number in (0, 1)
        ]

    def __enter__(self) -> Honest:
        for link in self._links:
            link.join(self._target.run.agreement)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(60)
        for link in self._links:
            link.close()

    def wait_for(self, steps: int, within_s: float = 60.0) -> float:
        """Waits until so many more steps are done; returns how long that took.

        Raises:
            AssertionError: they are not done within this time.
        """
        wanted, began_s = self.steps + steps, time.monotonic()
        while self.steps < wanted:
            assert self.error is None, f"an honest peer was ended: {self.error}"
            assert time.monotonic() - began_s < within_s, "the honest peers stand still"
            time.sleep(0.02)
        return time.monotonic() - began_s

    def _go_on(self, number: int) -> None:
        run, link = self._target.run, self._links[number]
        size = run.config.batch_size
        p_NN = np.full((size, size), 1 / size, np.float32)
        mine = SimilarityDistribution(p_NN, -float(np.log(size)))
        step = 0
        try:
            while not self._is_over.is_set() and step < run.plan.total_steps:
                began_s = time.monotonic()
                ticket = Ticket(
                    self._target.run_id, run.plan.round_of(step), step, run.schedule.digest(step)
                )
                link.publish(ticket, mine)
                signal = link.collect(ticket)
                if step % 20 == 0:
                    link.report([_report(run, self._target.peers[number], step)], [], None)
                if number == 0:
                    self.steps += 1
                    self.longest_s = max(self.longest_s, time.monotonic() - began_s)
                step = max(signal.next_step, step + 1)
        except BaseException as error:
            if not self._is_over.is_set():
                self.error = error


def _report(run: LoadedRun, peer: PeerId, step: int) -> StepReport:
    return StepReport(peer, run.plan.round_of(step), step, 2.0, 0.5, 1, 0.01, 0.01, 0.01, 9, 9)


class Actors:
    """The two honest peers of a run on Ray, which train in its actors.

    What they report says how they go on, which is up to a second old.

    Attributes:
        longest_s: the longest time that a step of the first of them took.
    """

    def __init__(self, target: Target) -> None:
        self.longest_s = 0.0
        self._target = target
        self._metrics = target.folder / "metrics.jsonl"
        self._offset = 0
        self._steps = 0

    @property
    def steps(self) -> int:
        """How many steps the first of them has done."""
        with self._metrics.open("rb") as file:
            file.seek(self._offset)
            *lines, _ = file.read().split(b"\n")
        for line in lines:
            self._offset += len(line) + 1
            record = json.loads(line)
            if record["type"] == "step" and record["peer"] == self._target.peers[0]:
                self._steps += 1
                took_s = record["compute_s"] + record["wait_s"] + record["exchange_s"]
                self.longest_s = max(self.longest_s, took_s)
        return self._steps

    def wait_for(self, steps: int, within_s: float = 60.0) -> float:
        """Waits until so many more steps are done; returns how long that took.

        Raises:
            AssertionError: they are not done within this time.
        """
        wanted, began_s = self.steps + steps, time.monotonic()
        while self.steps < wanted:
            assert self._target.is_alive(), self._target.written()[-2000:]
            assert time.monotonic() - began_s < within_s, "the honest peers stand still"
            time.sleep(0.05)
        return time.monotonic() - began_s
