"""A port for a program that can't be told to take a free one by itself."""

from __future__ import annotations

import random
import socket

LOOPBACK = "127.0.0.1"

_PORTS = range(20_000, 32_000)
"""Below those that the kernel gives to whoever asks for port 0, on Linux and elsewhere."""


def free_port() -> int:
    """Returns a port of loopback that nobody listens on.

    The program that is to listen there may start seconds later. Meanwhile the kernel gives the port
    to nobody, however many others ask it for one.
    """
    drawn = random.SystemRandom()
    for port in (drawn.choice(_PORTS) for _ in range(100)):
        with socket.socket() as one:
            try:
                one.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no port of {_PORTS} is free")
