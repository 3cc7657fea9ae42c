"""The command `dogo-fed`, also as `python -m server`: a verb, then Hydra overrides."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from dogo_fed.agreement import package_folder
from dogo_fed.memory import keep_freed_memory

VERBS = {
    "train": ("server.train_verb:main", "pre-train peers that teach each other"),
    "flower": (
        "server.flower_verb:main",
        "the same run in Flower's simulation: wraps `flwr run`",
    ),
    "evaluate": (
        "server.evaluate_verb:main",
        "how good a finished run's encoders, or a weights file, are: few or noisy labels, transfer, ...",
    ),
    "compare": (
        "server.compare_verb:main",
        "did it help? paired runs of several methods, and the table of the answer",
    ),
    "data": ("server.data_verb:main", "load the data set, say what it is, draw samples of it"),
    "peer": ("clients.site_peer:main", "a site's peer process, for Flower deployments"),
}

_PACKAGES = ("dogo_fed", "server", "clients", "configs")


def main() -> None:
    """Runs the verb in `sys.argv[1]`; the rest of the command line is Hydra's."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(_usage())
        return
    if arguments[0] == "--version":
        sys.stdout.write(f"dogo-fed {_version()}\n")
        return
    if arguments[0] not in VERBS:
        sys.stderr.write(f"dogo-fed: there is no verb {arguments[0]!r}\n\n{_usage()}")
        sys.exit(2)
    _check_packages()
    keep_freed_memory()
    module_name, _, name = VERBS[arguments[0]][0].partition(":")
    verb: Callable[[], None] = getattr(import_module(module_name), name)
    sys.argv = [f"dogo-fed {arguments[0]}", *arguments[1:]]
    verb()


def _usage() -> str:
    verbs = "\n".join(f"  {verb:<8} {what}" for verb, (_, what) in VERBS.items())
    return (
        "usage: dogo-fed VERB [key=value ...]\n\n"
        f"{verbs}\n\n"
        "every verb takes Hydra overrides (seed=3 peers=trio), --help lists all settings,\n"
        "--cfg job prints the composed configuration, -m runs several (-m seed=1,2,3)\n"
    )


def _check_packages() -> None:
    """Refuses to run with somebody else's package of the name of one of ours."""
    folders = {package: package_folder(package) for package in _PACKAGES}
    home = folders["dogo_fed"].parent
    for package, folder in folders.items():
        if folder.parent != home:
            sys.stderr.write(
                f"dogo-fed: package {package!r} is imported from {folder}, but dogo_fed from "
                f"{folders['dogo_fed']}; another package of that name is in the way. Run from another "
                "folder, or use a fresh environment\n"
            )
            sys.exit(2)


def _version() -> str:
    try:
        return version("dogo-fed")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    main()
