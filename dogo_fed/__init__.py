"""dogo-fed: peers with different networks and objectives teach each other and share no weights.

The public names below are loaded when they are first used, so that `import dogo_fed` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dogo_fed.config import ComponentConfig, DataConfig, PeerConfig, RunConfig
    from dogo_fed.config_text import load_run_config
    from dogo_fed.data.map_style import dataset_from_arrays, dataset_from_map_style
    from dogo_fed.data.source import DataSet
    from dogo_fed.errors import DogoError
    from dogo_fed.run.train import train

_HOME_OF = {
    "ComponentConfig": "dogo_fed.config",
    "DataConfig": "dogo_fed.config",
    "DataSet": "dogo_fed.data.source",
    "DogoError": "dogo_fed.errors",
    "PeerConfig": "dogo_fed.config",
    "RunConfig": "dogo_fed.config",
    "dataset_from_arrays": "dogo_fed.data.map_style",
    "dataset_from_map_style": "dogo_fed.data.map_style",
    "load_run_config": "dogo_fed.config_text",
    "train": "dogo_fed.run.train",
}

__all__ = [
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


def __getattr__(name: str) -> object:
    """Loads a public name from its home."""
    if name == "__version__":
        return _version()
    if name not in _HOME_OF:
        raise AttributeError(f"module 'dogo_fed' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def _version() -> str:
    """Returns the installed version, or a text that says that there is none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("dogo-fed")
    except PackageNotFoundError:
        return "(not installed)"
