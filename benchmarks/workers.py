"""Processes that are started once and do what they are told again and again.

So no round of a benchmark pays for the start of Python, and rounds can take turns.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

_ENDS_WITHIN_S = 30.0


class Workers:
    """Processes that run a module of this package which calls `serve`. Use them in a `with`."""

    def __init__(self, module: str, number: int) -> None:
        """Starts none yet.

        Args:
            module: what they run, e.g. "benchmarks.simulated".
            number: how many.
        """
        self.number = number
        self._module = module
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Workers:
        self._start()
        return self

    def _start(self) -> None:
        command = [sys.executable, "-m", self._module]
        for _ in range(self.number):
            self._processes.append(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end(at_once=kind is not None)

    def _end(self, *, at_once: bool) -> None:
        for process in self._processes:
            assert process.stdin is not None and process.stdout is not None
            with suppress(OSError):  # it has ended, and left unread what it was told
                process.stdin.close()
            if at_once:
                process.kill()  # it may wait for peers that will not come
            process.wait(_ENDS_WITHIN_S)
            process.stdout.close()
        self._processes = []

    def call(self, name: str, given: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Calls a function in as many workers as there are arguments, all at once.

        If one of them ends, all are started anew, for the next turn.

        Args:
            name: the function.
            given: its keyword arguments, for each worker.

        Returns:
            What it has returned in each of them.

        Raises:
            RuntimeError: a worker has ended; its own error is above.
        """
        chosen = self._processes[: len(given)]
        for process, arguments in zip(chosen, given, strict=True):
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # its answer will be missing
                process.stdin.write(json.dumps({"name": name, "given": arguments}) + "\n")
                process.stdin.flush()
        answers = []
        for process in chosen:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                self._end(at_once=True)
                self._start()
                raise RuntimeError(f"a worker ({self._module}) has ended in {name}; see above")
            answers.append(json.loads(line))
        return answers


def serve(functions: Mapping[str, Callable[..., object]]) -> None:
    """Does what the lines of the standard input say, and answers each with a line, until it ends."""
    for line in sys.stdin:
        request = json.loads(line)
        answer = functions[request["name"]](**request["given"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
