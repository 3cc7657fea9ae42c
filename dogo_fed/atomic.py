"""Files that are there in full or not at all, whatever happens to the process or the machine.

A file is written under a hidden temporary name in the same folder, flushed to the disk, and renamed
over the old one; then the folder is flushed, so that the rename survives a power cut too. The
temporary name tells which process writes the file, so that what a killed one has left can be removed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import psutil

from dogo_fed.errors import StorageFull

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_KEEP_SIZE = 1
"""FALLOC_FL_KEEP_SIZE of Linux."""
_CLOCK_SET_BY = 500
"""In hundredths of a second; no process id comes again as soon as that."""
_PARTIAL = re.compile(r"\..+\.([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{8}\.partial(\.[^.]+)?")


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path in the folder of `path`, with its suffix, that replaces it on success.

    If the block raises, the temporary file is removed and an older `path` stays as it was.

    Raises:
        FileNotFoundError: the block wrote nothing, or the folder does not exist.
        OSError: it could not be written; the error names `path`, also where the system names nothing.
    """
    target = Path(path)
    partial = _partial(target)
    try:
        yield partial
        _flush_file(partial)
        os.replace(partial, target)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(partial), partial):
            error.filename = str(target)
        raise
    _flush_folder(target.parent)


def partial_folder(path: Path) -> Path:
    """Makes and returns a temporary folder beside `path`, which the caller renames or removes.

    If the process is killed before that, `remove_partials` finds it.

    Raises:
        OSError: it can't be made.
    """
    partial = _partial(path)
    partial.mkdir(mode=0o700)
    return partial


def check_writable(folder: Path) -> None:
    """Makes a folder, and checks that it takes files, before hours go into what is to be written there.

    Raises:
        OSError: it does not; the error names the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    probe = _partial(folder / "probe")
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        error.filename = str(folder)
        raise


def write_atomic(path: str | os.PathLike[str], content: bytes | memoryview | str) -> None:
    """Replaces `path` by `content` (text as UTF-8), in full or not at all."""
    with atomic_path(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def write_over(old: Path, path: Path, content: bytes | memoryview) -> None:
    """Writes `path` into the room that another file of the folder has, which is gone then.

    For a disk that is full: room that were given back first, anybody might take.

    Raises:
        OSError: it can't be written, since there is more to write; the old file is gone all the same.
    """
    partial = _partial(path)
    os.replace(old, partial)
    try:
        with partial.open("r+b") as file:
            file.write(content)
            file.truncate()
        _flush_file(partial)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


@contextmanager
def room_for(what: str, folder: Path, num_bytes: int | None = None) -> Iterator[None]:
    """Translates the errors of a disk that is full.

    Args:
        what: what the block writes, for people.
        folder: where it writes.
        num_bytes: how much it writes, if that is known.

    Raises:
        StorageFull: there was no room for it; the message says where, and what is missing.
    """
    try:
        yield
    except OSError as error:
        if not is_no_room(error):
            raise
        raise StorageFull(no_room(what, folder, error, num_bytes)) from error


def is_no_room(error: OSError) -> bool:
    """Whether a disk, a quota or a limit for the size of files is the reason."""
    return error.errno in _NO_ROOM


def no_room(what: str, folder: Path, error: OSError, num_bytes: int | None = None) -> str:
    """Returns the sentence that says what there is no room for, where, and what is missing."""
    takes = "" if num_bytes is None else f" takes {num_bytes / 2**20:.1f} MiB and"
    try:
        free = f"{shutil.disk_usage(folder).free / 2**20:.1f} MiB are free"
    except OSError:
        free = "it is not known how much is free"
    return f"no room for {what} in {folder}: it{takes} can't be written ({error.strerror}); {free}"


def append_whole(file: FileIO, content: bytes) -> None:
    """Appends to a file without a buffer, all or nothing.

    Raises:
        OSError: it can't be written; the file is as it was.
    """
    before = os.fstat(file.fileno()).st_size
    left = memoryview(content)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError:
        os.ftruncate(file.fileno(), before)
        raise


def keep_room(path: Path, num_bytes: int) -> None:
    """Gives a file that is there room on the disk for so many bytes more; its size stays.

    `os.ftruncate` gives it back. Only Linux can do that, and not on every disk; else this does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    # Python's own posix_fallocate makes the file longer.
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    with path.open("ab", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        fallocate(file.fileno(), _KEEP_SIZE, size, num_bytes)


def room_of(path: Path) -> int:
    """Returns how many bytes a file has room for on the disk, as far as the system tells."""
    status = path.stat()
    return max(status.st_size, 512 * getattr(status, "st_blocks", 0))


def write_json_atomic(path: str | os.PathLike[str], value: object) -> None:
    """Replaces `path` by `value` as indented JSON; numbers that are not finite become null."""
    write_atomic(path, json.dumps(without_nan(value), indent=2, allow_nan=False) + "\n")


def without_nan(value: object) -> object:
    """Returns `value` with null for every number that JSON can't express (NaN and infinities)."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [without_nan(item) for item in value]
    return value


def remove_partials(folder: Path) -> list[Path]:
    """Removes the temporary files and folders in a folder whose process is gone; returns their paths.

    Those of a process on another machine stay, since nothing is known of it here.
    """
    removed = []
    for path in folder.glob(".*.partial*"):
        found = _PARTIAL.fullmatch(path.name)
        if found is None or found[1] != _machine() or _is_alive(int(found[2]), int(found[3])):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        removed.append(path)
    return removed


def _partial(target: Path) -> Path:
    """Returns a new temporary path beside `target` that tells whose it is."""
    owner = f"{_machine()}-{os.getpid()}-{_started_at(os.getpid())}"
    return target.with_name(f".{target.stem}.{owner}-{secrets.token_hex(4)}.partial{target.suffix}")


@functools.cache
def _machine() -> str:
    """Returns a short digest of this machine's name; containers with process ids of their own differ."""
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # not on Linux
        namespace = 0
    return hashlib.sha256(f"{socket.gethostname()} {namespace}".encode()).hexdigest()[:8]


def _is_alive(pid: int, started_at: int) -> bool:
    """Whether the process of this id that was started then is still there.

    The time of a start is computed from the clock, which may have been set since; so a few seconds
    more or less are the same.
    """
    found = _started_at(pid)
    return found is not None and abs(found - started_at) <= _CLOCK_SET_BY


def _started_at(pid: int) -> int | None:
    """Returns when a process of this machine was started, in hundredths of a second; None if gone."""
    try:
        return round(100 * psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def _flush_file(path: Path) -> None:
    """Waits until the file's content is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Waits until the folder's entries are on the disk, where the file system can do that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse; the rename is done
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
