"""Who else is found on a machine by the processes that run there."""

from __future__ import annotations

import os
from types import SimpleNamespace

import psutil
import pytest

from server.flower.other_users import other_users


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        ([], []),
        ([(0, "root"), (33, "www-data"), (65_534, "nobody"), (61_200, "")], []),
        ([(1500, "me")], []),
        ([(1500, "me"), (1001, "bob"), (1000, "ada"), (1001, "bob")], ["ada", "bob"]),
        ([(200_007, ""), (None, "gone")], ["200007"]),
    ],
)
def test_people_who_have_processes_here_are_named(seen, found, monkeypatch) -> None:
    def process(user_id, name):
        uids = None if user_id is None else SimpleNamespace(real=user_id)
        return SimpleNamespace(info={"uids": uids, "username": name})

    monkeypatch.setattr(os, "getuid", lambda: 1500)
    monkeypatch.setattr(
        psutil, "process_iter", lambda attributes: iter([process(*one) for one in seen])
    )
    assert other_users() == found
