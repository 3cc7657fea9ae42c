"""What users build on: the public names, the commands, and what stands at the top of the repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import dogo_fed
from server.__main__ import COMMANDS
from tests.support.command_line import REPOSITORY

PUBLIC_NAMES = [
    "ComponentConfig",
    "DataConfig",
    "DataSet",
    "DogoError",
    "PeerConfig",
    "RunConfig",
    "dataset_from_arrays",
    "dataset_from_map_style",
    "load_run_config",
    "train",
]

OBJECTIVES_BASE = ["Embeddings", "Objective", "ObjectiveOutput", "ViewPair"]
"""What an objective of a user's own is written with."""


def test_the_public_names_are_these() -> None:
    """A name may be added. One that goes, or changes its meaning, is for CHANGELOG and a new version."""
    assert dogo_fed.__all__ == PUBLIC_NAMES
    for name in PUBLIC_NAMES:
        assert getattr(dogo_fed, name).__doc__, f"{name} says what it is"


def test_the_version_is_known() -> None:
    assert dogo_fed.__version__[0].isdigit()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = dogo_fed.nothing


def test_the_names_for_an_objective_of_ones_own_are_these() -> None:
    from dogo_fed.objectives import base

    here = [name for name in vars(base) if not name.startswith("_")]
    assert set(OBJECTIVES_BASE) <= set(here)


def test_what_the_pages_import_is_there() -> None:
    from dogo_fed.config import EvalConfig
    from dogo_fed.contracts import Score
    from dogo_fed.evaluation.subject import Subject
    from dogo_fed.run.evaluate import evaluate_run

    for found in (EvalConfig, Score, Subject, evaluate_run):
        assert found.__doc__


def test_the_commands_are_these() -> None:
    assert sorted(COMMANDS) == [
        "anchors", "compare", "data", "evaluate", "export", "flower", "matrix", "peer", "train",
    ]  # fmt: skip


def test_the_packages_stand_at_the_top() -> None:
    for package in ("dogo_fed", "server", "clients", "configs", "tests"):
        assert (REPOSITORY / package / "__init__.py").is_file()


def imported_by(statement: str) -> set[str]:
    """Returns the names of all modules that a fresh Python has loaded after a statement."""
    program = f"import sys; {statement}; print(*sys.modules, sep='\\n')"
    finished = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return set(finished.stdout.split())


def test_importing_the_library_is_cheap() -> None:
    assert not imported_by("import dogo_fed") & {"torch", "numpy", "yaml", "hydra", "ray"}


def test_a_peers_process_loads_no_hydra_no_comparison_and_no_scheduler() -> None:
    """What import-linter says of the source, seen in a process."""
    loaded = imported_by("import clients.__main__, clients.flower.peer_host")
    for name in ("hydra", "omegaconf", "ray", "flwr", "configs", "server", "dogo_fed.compare"):
        assert name not in loaded


def test_a_sites_peer_process_loads_no_hydra_once_it_has_its_settings(tmp_path: Path) -> None:
    listen = f"listen=unix:{tmp_path}/peer.sock"
    loaded = imported_by(
        "from clients.flower.site.options import SiteOptions; "
        "from clients.flower.site.worker import make_peer_host; "
        f"make_peer_host(SiteOptions.parse([{listen!r}, 'data=synthetic']))"
    )
    assert "clients.flower.peer_host" in loaded
    assert not loaded & {"hydra", "omegaconf", "configs", "dogo_fed.compare"}


def test_the_conversation_with_flowers_messages_loads_no_torch_no_flower_and_no_hydra() -> None:
    loaded = imported_by("import server.flower.conversation")
    assert not loaded & {"torch", "flwr", "hydra", "grpc", "ray", "dogo_fed.run"}


def test_a_sites_client_app_loads_no_torch_and_no_ray() -> None:
    """Flower starts a process of it for every message."""
    loaded = imported_by("import clients.flower.app, clients.flower.site.carrier")
    assert not loaded & {"torch", "ray", "hydra", "clients.flower.peer_host"}


def test_a_run_folder_is_read_without_hydra() -> None:
    loaded = imported_by("from dogo_fed import load_run_config; load_run_config")
    assert not loaded & {"hydra", "omegaconf", "configs"}
