"""Says what a figure was measured on, and writes results where they belong."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from benchmarks import kornia_stand_in
from benchmarks.turns import noted
from dogo_fed.atomic import write_json_atomic

CHECKOUT = Path(__file__).resolve().parents[1]
RESULTS = CHECKOUT / "benchmarks" / "results"

_ALL_BUT_RESULTS = (".", ":(exclude)benchmarks/results")

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


class Result:
    """What a benchmark has found, written to benchmarks/results/ at the end of a `with`.

    It is written too if a part has failed, and says which; then the program ends with 1. The file is
    <name>-<machine>-<month>.json. It does not take the place of a better one: a run of the usual settings
    is better than one of others, and then one without a failure. What is less good is written into tries/
    beside them, which git ignores.

    Attributes:
        found: what was found so far; without anything in it, nothing is written.
        settings: of the run.
        failed: why, by what has failed.
    """

    def __init__(
        self,
        name: str,
        how: str,
        parser: argparse.ArgumentParser,
        asked: argparse.Namespace,
        *,
        named_by: Sequence[str] = (),
        aside: Sequence[str] = (),
    ) -> None:
        """Has found nothing yet.

        Args:
            name: the benchmark, which is its module.
            how: a sentence or two about how it measures, for the page.
            parser: of its command line; its defaults are the usual settings.
            asked: what it was asked for.
            named_by: arguments that say what is measured. A value that is not the usual one has a file
                of its own, with the value in its name, and is as good as the usual one.
            aside: arguments, such as a place on the disk, that make a run no better or worse.
        """
        self.found: dict[str, Any] = {}
        self.settings = {key: _plain(value) for key, value in vars(asked).items()}
        self.failed: dict[str, str] = {}
        self._name, self._how = name, how
        unusual = [
            key
            for key, value in self.settings.items()
            if (value or None) != (_plain(parser.get_default(key)) or None)
        ]
        self._parts = [
            key if self.settings[key] is True else f"{key}_{tag(str(self.settings[key]))}"
            for key in named_by
            if key in unusual
        ]
        self._is_whole = set(unusual) <= {*named_by, *aside}

    def __enter__(self) -> Result:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self.failed["what came after"] = noted("what came after", error)
        self.write()
        if error is None and self.failed:
            sys.exit(f"{self._name}: not all was measured; failed: {', '.join(self.failed)}")

    @contextmanager
    def going_on(self, what: str) -> Iterator[None]:
        """Notes it if this part fails, and goes on after it."""
        try:
            yield
        except Exception as error:
            self.failed[what] = noted(what, error)

    def write(self, not_yet: str | None = None) -> Path | None:
        """Writes what was found so far, and returns where; None if that is nothing.

        Args:
            not_yet: a part that is still to come.
        """
        if not any(self.found.values()):
            return None
        facts = machine()
        path = RESULTS / f"{'.'.join([self._name, *self._parts])}-{place(facts)}.json"
        failed = self.failed | ({not_yet: "not measured yet"} if not_yet else {})
        content = {
            "benchmark": self._name,
            "machine": facts,
            "date": datetime.date.today().isoformat(),
            "commit": _commit(),
            "command": shlex.join(["python", "-m", f"benchmarks.{self._name}", *sys.argv[1:]]),
            "settings": self.settings,
            "is_whole": self._is_whole,
            "failed": failed,
            "how": self._how,
            **self.found,
        }
        if path.is_file() and _rank(content) < _rank(json.loads(path.read_text("utf-8"))):
            path = RESULTS / "tries" / path.name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(path, content)
        print(f"written to benchmarks/results/{path.relative_to(RESULTS)}")
        return path


def _plain(value: object) -> Any:
    """Returns a setting as JSON has it."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _rank(content: Mapping[str, Any]) -> int:
    """Returns how good a result is: the usual settings, or others; all of it, or a part has failed."""
    # An early result does not say it, and had no settings but in its command.
    is_whole = content.get("is_whole", not shlex.split(content.get("command", ""))[3:])
    return 2 * bool(is_whole) + (not content.get("failed"))


def _commit() -> str | None:
    """Returns the commit of this checkout, with a + if files differ from it; None without git.

    The results themselves do not count: a benchmark writes what git keeps.
    """
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", *_ALL_BUT_RESULTS)
    commit = _git("rev-parse", "--short=12", "HEAD")
    return commit if commit is None or changed is None else commit + "+" * bool(changed)


def _git(*arguments: str) -> str | None:
    """Returns what git says of this checkout; None without git or outside of one."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
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
