"""Who else is on this machine, for Flower's own processes on it ask nobody who they are."""

from __future__ import annotations

import os

import psutil

_FIRST_PERSON = 1000
_SERVICES = range(61_184, 65_536)  # systemd's dynamic users, and nobody


def other_users() -> list[str]:
    """Returns the names of people, besides this user and root, who have processes here.

    A process is a sure sign. Nobody may be found although there is somebody: users who have none
    now, and all if the system hides the processes of others.
    """
    found = set[str]()
    for process in psutil.process_iter(["uids", "username"]):
        uids = process.info["uids"]
        if uids is not None and _is_somebody_else(uids.real):
            found.add(process.info["username"] or str(uids.real))
    return sorted(found)


def _is_somebody_else(user_id: int) -> bool:
    return user_id >= _FIRST_PERSON and user_id not in _SERVICES and user_id != os.getuid()
