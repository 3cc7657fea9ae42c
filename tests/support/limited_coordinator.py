"""A coordinator in a process whose descriptors a test has limited.

It says where it is and how many descriptors it may have. For each line on its standard input it
opens 100 files at once, as checkpoints and logs would, and says "opened" or the error.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from contextlib import ExitStack

from dogo_fed.reporting.sink import TeeSink
from server.coordinator.host import CoordinatorHost
from server.coordinator.service import ServiceSettings
from tests.support.distributions import ADA, BOB, WIRE, settings


def main() -> None:
    """Serves until standard input closes."""
    service = ServiceSettings(address="127.0.0.1", port=0, answer_within_s=30.0)
    with CoordinatorHost(settings((ADA, BOB)), WIRE, service, TeeSink()) as host:
        say(
            {
                "address": host.address,
                "credentials": {peer: host.credential_of(peer) for peer in (ADA, BOB)},
                "limit": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            }
        )
        for _ in sys.stdin:
            try:
                with ExitStack() as opened:
                    for _ in range(100):
                        opened.callback(os.close, os.open(os.devnull, os.O_RDONLY))
                say("opened")
            except OSError as error:
                say(str(error))


def say(what: object) -> None:
    """Writes a line of JSON."""
    sys.stdout.write(f"{json.dumps(what)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
