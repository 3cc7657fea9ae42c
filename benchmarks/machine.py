"""Says what a figure was measured on, and writes results where they belong."""

from __future__ import annotations

import datetime
import os
import platform
import re
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks import kornia_stand_in
from dogo_fed.atomic import write_json_atomic

RESULTS = Path(__file__).resolve().parent / "results"

_SAYS_NOTHING = re.compile(r"\((?:r|tm)\)|@.*|\b(?:cpu|processor|\d+-core)\b", flags=re.IGNORECASE)
"""Parts of a processor's name that do not tell it from others."""


def machine() -> dict[str, Any]:
    """Returns processor, cores, accelerator and the versions that matter."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "accelerator": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "grpcio": _version("grpcio"),
        "kornia": "plain torch in its place" if kornia_stand_in.is_in_use() else _version("kornia"),
    }


def tag(name: str) -> str:
    """Returns the name of a processor or an accelerator as a part of a file's name."""
    words = re.sub(r"[^a-z0-9]+", "-", _SAYS_NOTHING.sub(" ", name).lower()).strip("-")
    return words or "unknown"


def place(facts: dict[str, Any]) -> str:
    """Returns what tells a machine and month in the names of files, e.g. amd-epyc-2core-2026-11."""
    names = [facts["accelerator"], facts["processor"]]
    tags = [tag(name) for name in names if name is not None]
    month = datetime.date.today().strftime("%Y-%m")
    return "-".join([*tags, f"{facts['cores']}core", month])


def write_result(name: str, how: str, content: dict[str, Any]) -> Path:
    """Writes benchmarks/results/<name>-<machine>-<month>.json and returns its path.

    Args:
        name: the benchmark, which is its module.
        how: a sentence or two about how it measures, for the page.
        content: what it has found.
    """
    facts = machine()
    path = RESULTS / f"{name}-{place(facts)}.json"
    RESULTS.mkdir(exist_ok=True)
    command = shlex.join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]])
    write_json_atomic(
        path, {"benchmark": name, "machine": facts, "command": command, "how": how, **content}
    )
    print(f"written to {path.name} in benchmarks/results/")
    return path


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
