"""The token of a Ray that we start: who does not know it can't use that Ray.

Ray listens on all interfaces of the machine, and whoever reaches its ports runs code as its user,
unless it was started with RAY_AUTH_MODE=token. So a Ray of our own always is, with a token that is
drawn for it. The token is in the environment of its processes and nowhere else: only the user and
root can read it there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from dogo_fed.wire.secret import new_secret

ADDRESS = "RAY_ADDRESS"
"""Ray's variable for the cluster to join, for programs that don't name one."""

_OWN = "local"
"""Ray's word for a Ray of one's own, where an address is expected."""


def own_ray_environment() -> dict[str, str | None]:
    """Returns the variables of a Ray that only its starter may use; None takes one away.

    A token that the user has for clusters of his is not used. Those who know it have no business in
    a Ray that lives for one run.
    """
    return {
        ADDRESS: _OWN,  # else Ray joins one that it finds on this machine
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": new_secret(),
        "RAY_AUTH_TOKEN_PATH": None,
        "RAY_ENABLE_K8S_TOKEN_AUTH": None,
    }


def joined_address(environment: Mapping[str, str]) -> str | None:
    """Returns the address of the cluster that the environment says to join; None for one's own."""
    address = environment.get(ADDRESS, "")
    return None if address in ("", _OWN) else address


@contextmanager
def own_token() -> Iterator[None]:
    """Gives every Ray that is started in the block a token of its own.

    The environment is afterwards what it was, and so is what Ray has read of it: this process may
    join another cluster.
    """
    put_back = give_own_token()
    try:
        yield
    finally:
        put_back()


def give_own_token() -> Callable[[], None]:
    """Gives the next Ray that this process starts a token of its own; returns what takes it back."""
    changes = own_ray_environment()
    earlier = {name: os.environ.get(name) for name in changes}

    def put(variables: Mapping[str, str | None]) -> None:
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        read_environment()

    put(changes)
    return lambda: put(earlier)


def starts_own_ray() -> bool:
    """Whether a `ray.init()` without an address would start a Ray in this process."""
    ray: Any = sys.modules.get("ray")  # whoever uses a Ray has loaded all of it
    is_used = bool(getattr(ray, "is_initialized", bool)())
    return joined_address(os.environ) is None and not is_used


def read_environment() -> None:
    """Lets Ray read its variables anew, if it is loaded: it reads them once, and keeps them."""
    if "ray" in sys.modules:
        raylet: Any = import_module("ray._raylet")  # not public: there is no other way
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()
