"""The command `dogo-fed`, also as `python -m server`; the first argument names a command."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from types import FrameType

import dogo_fed
from dogo_fed.errors import ConfigError
from dogo_fed.exit_status import EXIT_STOPPED, EXIT_UNUSABLE, say, tell
from dogo_fed.packages import check_packages
from dogo_fed.private_files import keep_files_private
from dogo_fed.process_setup import keep_freed_memory

COMMANDS = {
    "train": ("server.commands.train:main", "pre-train peers that teach each other"),
    "flower": (
        "server.commands.flower:main",
        "the same run in Flower's simulation: wraps `flwr run`",
    ),
    "evaluate": (
        "server.commands.evaluate:main",
        "how good a finished run's encoders, or a weights file, are: few or noisy labels, "
        "transfer, ...",
    ),
    "compare": (
        "server.commands.compare:main",
        "did it help? paired runs of several methods, and the table of the answer",
    ),
    "anchors": (
        "server.commands.anchors:main",
        "the manifest of an anchor set: make one, or check your copy of the images by it",
    ),
    "matrix": (
        "server.commands.matrix:main",
        "every encoder of a run on every peer's private images",
    ),
    "export": (
        "server.commands.export:main",
        "a trained encoder for torchvision, timm or onnxruntime, with a card",
    ),
    "data": ("server.commands.data:main", "load the data set, say what it is, draw samples of it"),
    "peer": ("clients.flower.site.watcher:main", "a site's peer process, for Flower deployments"),
}


def main() -> None:
    """Runs the command in `sys.argv[1]`; the command reads the rest of the command line."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(_usage())
        return
    if arguments[0] == "--version":
        sys.stdout.write(f"dogo-fed {dogo_fed.__version__}\n")
        return
    if arguments[0] not in COMMANDS:
        status = say(f"there is no command {arguments[0]!r}", EXIT_UNUSABLE)
        sys.stderr.write(f"\n{_usage()}")
        sys.exit(status)
    try:
        check_packages()
    except ConfigError as error:
        sys.exit(say(error, EXIT_UNUSABLE))
    keep_files_private()
    keep_freed_memory()
    sys.path.append(os.getcwd())  # where a user's own modules are; last, so that they hide none
    try:
        command = _load(COMMANDS[arguments[0]][0])
        sys.argv = [f"dogo-fed {arguments[0]}", *arguments[1:]]
        command()
    except KeyboardInterrupt:  # a command that has begun says itself how to go on
        sys.exit(say("stopped before it had begun", EXIT_STOPPED))
    except OSError as error:
        sys.exit(tell(error))


def _load(place: str) -> Callable[[], None]:
    """Returns a command, "module:function". An interrupt meanwhile ends the process at once.

    Nothing has begun that would have to be ended well. A `KeyboardInterrupt` would not do: libraries
    that are interrupted while they are imported may swallow it, and the command would go on.
    """
    module_name, _, name = place.partition(":")
    is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_ours:
        signal.signal(signal.SIGINT, _leave)
    try:
        command: Callable[[], None] = getattr(import_module(module_name), name)
    finally:
        if is_ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    return command


def _leave(number: int, frame: FrameType | None) -> None:
    """Ends the process; standard error is written to without its buffer, which may be in use."""
    os.write(2, b"dogo-fed: stopped before it had begun\n")
    os._exit(EXIT_STOPPED)


def _usage() -> str:
    commands = "\n".join(f"  {name:<8} {what}" for name, (_, what) in COMMANDS.items())
    return (
        "usage: dogo-fed COMMAND [key=value ...]\n\n"
        f"{commands}\n\n"
        "every command takes --help; all but evaluate, matrix and export take settings of a run\n"
        "(seed=3 peers=trio)\n"
        "train, evaluate and data are read by Hydra: there --help lists all settings, --cfg job\n"
        "prints the composed configuration, and -m runs several (-m seed=1,2,3)\n"
    )


if __name__ == "__main__":
    main()
