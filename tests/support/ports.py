"""Ports of loopback: a free one for a program that can't take one by itself, and who listens."""

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


def is_listening(port: int) -> bool:
    """Whether somebody listens on this port of loopback."""
    with socket.socket() as one:
        one.settimeout(1.0)
        return one.connect_ex((LOOPBACK, port)) == 0
