"""Says what a figure was measured on, and writes results where they belong."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from dogo_fed.atomic import write_json_atomic

RESULTS = Path(__file__).resolve().parent / "results"


def machine() -> dict[str, Any]:
    """Returns processor, cores, accelerator and the versions that matter."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "accelerator": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "grpcio": version("grpcio"),
    }


def write_result(name: str, content: dict[str, Any]) -> Path:
    """Writes benchmarks/results/<name>-<cpu or gpu>-<month>.json and returns its path."""
    kind = "gpu" if torch.cuda.is_available() else f"{os.cpu_count()}core"
    month = datetime.date.today().strftime("%Y-%m")
    path = RESULTS / f"{name}-{kind}-{month}.json"
    RESULTS.mkdir(exist_ok=True)
    write_json_atomic(path, {"benchmark": name, "machine": machine(), **content})
    return path


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
