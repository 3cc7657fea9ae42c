"""The packages that make up dogo-fed: their names, their folders, and a digest of their source."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

from dogo_fed.errors import ConfigError

PACKAGES = ("dogo_fed", "server", "clients", "configs")


def package_folder(package: str) -> Path:
    """Returns the folder that `package` is imported from; does not import it.

    Raises:
        ConfigError: there is no such package.
    """
    spec = find_spec(package)
    locations = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not locations:
        raise ConfigError(f"package {package!r} can't be found; is dogo-fed installed?")
    return Path(locations[0]).resolve()


def check_packages() -> None:
    """Checks that our packages lie side by side.

    Names like "server" are common, so another package of that name may be imported in place of
    ours.

    Raises:
        ConfigError: a package of one of these names is imported from elsewhere.
    """
    folders = {package: package_folder(package) for package in PACKAGES}
    for package, folder in folders.items():
        if folder.parent != folders["dogo_fed"].parent:
            raise ConfigError(
                f"package {package!r} is imported from {folder}, but dogo_fed from "
                f"{folders['dogo_fed']}; another package of that name is in the way. Run from "
                "another folder, or use a fresh environment"
            )


def source_digest() -> str:
    """Returns a hex digest over names and contents of our packages' Python and YAML files."""
    hasher = hashlib.blake2b(digest_size=16)
    for package in PACKAGES:
        root = package_folder(package)
        for path in sorted(root.rglob("*"), key=lambda path: path.relative_to(root).as_posix()):
            if path.suffix in (".py", ".yaml"):
                name = f"{package}/{path.relative_to(root).as_posix()}".encode()
                content = path.read_bytes()
                hasher.update(len(name).to_bytes(4, "little") + name)
                hasher.update(len(content).to_bytes(8, "little") + content)
    return hasher.hexdigest()
