"""The process that holds a site's model; `clients.flower.site.watcher` starts and watches it.

It saves the peer and ends at SIGTERM, SIGINT or SIGHUP. It does the same when its standard input
closes, because then the watcher is gone.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from clients.flower.site.options import SiteOptions
from clients.flower.site.server import SiteServer
from dogo_fed.errors import ConfigError, DogoError, StartError
from dogo_fed.exit_status import EXIT_FAILED, EXIT_UNUSABLE, say
from dogo_fed.reporting.log_file import warnings_to_stderr
from dogo_fed.run.stop_signal import STOP_SIGNALS

SAVE_WITHIN_S = 60.0
"""How long a peer may take to save itself, in seconds; then the process ends anyway."""

_COMPOSED_WITHIN_S = 120.0
_POLL_S = 0.5
_DEFAULT_RUN_ROOT = "runs"


class MessageHandler(Protocol):
    """Answers messages; `clients.flower.peer_host.PeerHost` is one."""

    def handle(self, body: bytes) -> bytes:
        """Returns the reply to a message. Any thread may call it."""
        ...

    def close(self) -> None:
        """Lets the peer save itself, and ends it."""
        ...


def main() -> int:
    """Runs the worker; returns its exit status."""
    warnings_to_stderr()
    return run_worker(sys.argv[1:], make_peer_host)


def run_worker(arguments: Sequence[str], make_host: Callable[[SiteOptions], MessageHandler]) -> int:
    """Answers messages until it is told to end.

    Args:
        arguments: see `SiteOptions`.
        make_host: makes what answers the messages.

    Returns:
        0, or `EXIT_UNUSABLE` if it could not start.
    """
    ended = threading.Event()
    # No event for signals: their handler runs in this thread, maybe while it holds the event's lock.
    signals: list[int] = []
    for number in STOP_SIGNALS:
        signal.signal(number, lambda number, frame: signals.append(number))
    threading.Thread(target=_watch_input, args=(ended,), daemon=True).start()
    try:
        options = SiteOptions.parse(arguments)
        host = make_host(options)
        server = SiteServer(
            options.listen,
            host.handle,
            token=options.token,
            max_message_bytes=options.max_message_bytes,
        )
    except DogoError as error:
        return say(error, EXIT_UNUSABLE)
    say(f"peer process {os.getpid()} listens on {options.listen}", 0)
    while not signals and not ended.wait(_POLL_S):
        pass
    _end_anyway_after(SAVE_WITHIN_S)
    server.refuse()
    host.close()
    server.stop()  # only now: until the peer is saved, no other process may take the address
    return 0


def make_peer_host(options: SiteOptions) -> MessageHandler:
    """Returns the host of this site's peer.

    Raises:
        ConfigError: the site's own settings can't be run.
        StartError: the process that composes them did not start, or hangs.
    """
    # Imported here, since torch takes seconds: the command line is checked before that.
    from clients.flower.peer_host import PeerHost, SiteSettings
    from dogo_fed.config_text import from_mapping

    config = from_mapping(_composed(options.overrides))
    site = SiteSettings(
        config=config,
        root_certificates=options.root_certificates,
        run_root=Path(config.run_dir or _DEFAULT_RUN_ROOT).resolve(),
    )
    return PeerHost(f"process {os.getpid()} on {socket.gethostname()}", site)


def _composed(overrides: Sequence[str]) -> Mapping[str, Any]:
    """Returns this site's settings. Another process composes them, so that this one loads no Hydra."""
    command = [sys.executable, "-m", "configs", *overrides]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,  # ours is the watcher's pipe
            capture_output=True,
            text=True,
            timeout=_COMPOSED_WITHIN_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StartError(f"this site's settings can't be composed: {error}") from error
    if done.returncode != 0:
        raise ConfigError(done.stderr.strip().removeprefix("dogo-fed: "))
    sys.stderr.write(done.stderr)
    composed: dict[str, Any] = json.loads(done.stdout)
    return composed


def _watch_input(ended: threading.Event) -> None:
    """Sets the event when standard input closes, i.e. when the watcher has ended."""
    while os.read(0, 4096):  # not sys.stdin, whose lock would block the interpreter's exit
        pass
    ended.set()


def _end_anyway_after(seconds: float) -> None:
    """Ends the process after this time, even if the peer's thread hangs."""

    def end() -> None:
        # Not sys.exit, which in a thread ends only the thread.
        os._exit(say(f"the peer did not save itself within {seconds:g} s", EXIT_FAILED))

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    sys.exit(main())
