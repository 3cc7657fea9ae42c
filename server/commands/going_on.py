"""How to go on with a run that has ended early, for the last line that a command says."""

from __future__ import annotations

import shlex
from pathlib import Path


def how_to_go_on(folder: Path | None, command: str) -> str:
    """Returns "; go on with it by: ..." with the command to type; empty if nothing was saved.

    Args:
        folder: the run folder, if there is one yet.
        command: "train" or "flower".
    """
    if folder is None or not any(folder.glob("peers/*/checkpoints/step-*.pt")):
        return ""
    return f"; go on with it by: dogo-fed {command} {shlex.quote(f'resume={folder}')}"
