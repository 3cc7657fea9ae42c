"""The lock of a run folder: one start of a run writes into it at a time.

The lock is a file that exists while the run goes on. It names the process and the machine that own
it. Creating a file that must not be there yet is atomic on local disks and on network storage, so
this holds where locks of the operating system (flock) are not passed on between machines. filelock
does it, and recognises an owner of this machine that is gone: no process has its id, or one that
was started at another time. Of an owner on another machine nothing can be known from here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from filelock import SoftFileLock, Timeout

from dogo_fed import layout
from dogo_fed.errors import ConfigError

_PARTIAL = ".*.partial*"
"""What `atomic` calls a file that is not yet whole."""


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Holds the lock of a run folder; takes over one whose owner was a process of this machine.

    Raises:
        ConfigError: another process holds it, or the folder can't be written to.
    """
    lock = SoftFileLock(folder / layout.LOCK, timeout=0, thread_local=False)
    try:
        # Twice: the first attempt may do no more than remove the file of an owner that is gone.
        try:
            lock.acquire()
        except Timeout:
            _remove_if_owner_is_dead(folder)
            lock.acquire()
    except Timeout as error:
        raise ConfigError(told_owner(folder) or f"the run in {folder} has just ended") from error
    except OSError as error:
        raise ConfigError(f"the run folder {folder} can't be written to: {error}") from error
    try:
        yield
    finally:
        lock.release()


def is_unused(folder: Path) -> bool:
    """Whether no run has begun in a folder, which is there.

    It has nothing in it but what a start leaves that is killed before it has written config.yaml:
    a lock, and files that are not whole.
    """
    return all(
        path.name == layout.LOCK
        or path.name.startswith(f"{layout.LOCK}.")  # filelock's own, while it takes over a lock
        or path.match(_PARTIAL)
        for path in folder.iterdir()
    )


def read_lock(folder: Path) -> str:
    """Returns what a folder's lock says about its owner; empty if there is no lock.

    A peer that outlives its launcher compares it with what it was told at its start: another owner
    means that another start of the run goes on in this folder, and the peer must not write there.
    """
    with suppress(OSError, UnicodeDecodeError):
        return (folder / layout.LOCK).read_text(encoding="utf-8")
    return ""


def told_owner(folder: Path) -> str | None:
    """Returns a sentence about the process that holds a folder's lock; None if there is no lock."""
    path = folder / layout.LOCK
    if not path.exists():
        return None
    process, host = _owner(folder)
    return (
        f"a run goes on in {folder}: process {process or '(unknown)'} on {host or '(unknown)'} "
        "writes there. Wait for its end, or stop it. If it is another machine, and that process "
        f"is gone, remove {path} and type the command again"
    )


def _owner(folder: Path) -> tuple[str, str]:
    """Returns process id and machine as a folder's lock names them; empty where it does not."""
    process, host, *_ = [*read_lock(folder).split("\n"), "", ""]
    return process, host


def _remove_if_owner_is_dead(folder: Path) -> None:
    """Removes a lock whose owner has ended and waits for its parent to notice: a zombie.

    Its id is still taken, so filelock counts it as alive. In a container, where nothing may wait for
    orphans, it stays so for ever.
    """
    process, host = _owner(folder)
    with suppress(psutil.Error, OSError):
        if (
            process.isdecimal()
            and host == _this_machine()
            and psutil.Process(int(process)).status() == psutil.STATUS_ZOMBIE
        ):
            (folder / layout.LOCK).unlink()


def _this_machine() -> str:
    """Returns what filelock writes for this machine, by letting it write.

    It escapes some characters of the name, shortens a long one and, in a container, adds the
    namespace that process ids are of.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        SoftFileLock(Path(folder) / layout.LOCK, timeout=0, thread_local=False),
    ):
        return _owner(Path(folder))[1]
