"""Says what a figure was measured on, and writes results where they belong."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import shlex
import subprocess
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
        **_kind_of_processor(),
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
    """Returns what tells a machine and month in the names of files.

    For example amd-epyc-f25-m17-bf16-2core-2026-11. Virtual machines call processors of several
    generations by one name, and one without instructions for bfloat16 is many times slower in it.
    """
    names = [facts["accelerator"], facts["processor"]]
    tags = [tag(name) for name in names if name is not None]
    if facts.get("family") is not None:
        tags += [f"f{facts['family']}", f"m{facts['model']}"]
    tags += ["bf16"] if facts.get("bf16") else []
    month = datetime.date.today().strftime("%Y-%m")
    return "-".join([*tags, f"{facts['cores']}core", month])


def write_result(name: str, how: str, content: dict[str, Any]) -> Path:
    """Writes benchmarks/results/<name>-<machine>-<month>.json and returns its path.

    A run with arguments does not take the place of one without, nor that of one with --full: it is
    written into tries/ beside them, which git ignores.

    Args:
        name: the benchmark, which is its module.
        how: a sentence or two about how it measures, for the page.
        content: what it has found.
    """
    facts = machine()
    path = RESULTS / f"{name}-{place(facts)}.json"
    command = shlex.join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]])
    if path.is_file():
        before = json.loads(path.read_text("utf-8")).get("command", "")
        if _completeness(command) < _completeness(before):
            path = RESULTS / "tries" / path.name
    path.parent.mkdir(parents=True, exist_ok=True)
    head = {
        "benchmark": name,
        "machine": facts,
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
        "command": command,
        "how": how,
    }
    write_json_atomic(path, {**head, **content})
    print(f"written to benchmarks/results/{path.relative_to(RESULTS)}")
    return path


def _completeness(command: str) -> int:
    """Returns the rank of a run by its command: some of it, the usual, all there is."""
    arguments = shlex.split(command)[3:]
    return 2 if "--full" in arguments else int(not arguments)


def _commit() -> str | None:
    """Returns the commit of this checkout, with a + if files differ from it; None without git."""
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=RESULTS.parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def _kind_of_processor() -> dict[str, Any]:
    """Returns what tells processors of one name apart: generation, and instructions for bfloat16."""
    found = _cpuinfo()
    flags = found.get("flags", "").split()
    return {
        "family": found.get("cpu family"),
        "model": found.get("model"),
        "stepping": found.get("stepping"),
        "bf16": [one for one in ("avx512_bf16", "amx_bf16") if one in flags],
    }


def _cpuinfo() -> dict[str, str]:
    """Returns what Linux says of the first processor."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    pairs = [line.partition(":") for line in text.partition("\n\n")[0].splitlines()]
    return {name.strip(): value.strip() for name, _, value in pairs}
