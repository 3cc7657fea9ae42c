"""Three sites and a coordinator as processes on this machine, as three organisations would run them.

    python -m examples.cross_site.run runs/cross_site

Each site has private images that nobody else sees. All have the same anchors. The coordinator has
no image at all, only the manifest of the anchors. Everything listens on loopback, with TLS and a key
for each site. Every command is printed before it is started, so this file can be read as a recipe;
docs/flower.md has the same for machines of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import torch
from torchvision.io import write_png

from dogo_fed.data.digits_m import digits_m
from examples.cross_site.certificates import make_certificates, make_node_key

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SITES = ("cnn", "resnet", "wide")
"""The peers of `peers=trio`: three architectures."""
CLASSES = {"cnn": (0, 1, 2, 3), "resnet": (3, 4, 5, 6), "wide": (6, 7, 8, 9)}
"""Each site has images of some digits only."""
NUM_ANCHORS, NUM_PRIVATE = 200, 300
STARTED_WITHIN_S = 90.0


def main() -> None:
    """Does all of it in the folder that the command line names; further words are settings of the run."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python -m examples.cross_site.run FOLDER [steps=100 ...]")
    folder, settings = Path(sys.argv[1]).resolve(), sys.argv[2:] or ["steps=100"]
    if folder.exists():
        sys.exit(f"{folder} exists already; name a new folder")
    folder.mkdir(parents=True)
    make_images(folder / "images")
    anchors = folder / "images" / "anchors"
    run(
        "dogo-fed", "anchors", "make", *shared(anchors), "licence=CC0", f"out={folder}/anchors.json"
    )
    for _ in SITES:  # each site checks its own copy; here all have the same files
        run("dogo-fed", "anchors", "check", *shared(anchors), f"manifest={folder}/anchors.json")
    with contextlib.ExitStack() as processes:
        federate(processes, folder, anchors, settings)
    if not (folder / "run" / "summary.json").exists() or not all(map(encoders, sites(folder))):
        sys.exit(f"the run has failed; each process has left a log below {folder}")
    print(f"\nthe coordinator's summary: {folder}/run/summary.json")
    for site in sites(folder):
        print(f"the encoder of {site.name}, which never left it: {encoders(site)[0]}")


def sites(folder: Path) -> list[Path]:
    """Returns the folders of the sites."""
    return [folder / site for site in SITES]


def encoders(site: Path) -> list[Path]:
    """Returns the encoders that a site's peer has exported."""
    return list((site / "runs").glob(f"*/peers/{site.name}/encoder.safetensors"))


def shared(anchors: Path) -> list[str]:
    """Returns the settings that name the anchors."""
    return [f"data={anchors}", "data.options.image_size=32", "data.options.labels=none"]


def federate(
    processes: contextlib.ExitStack, folder: Path, anchors: Path, settings: Sequence[str]
) -> None:
    """Starts the federation, carries one run through, and leaves the processes to be ended."""
    tls = make_certificates(folder / "tls")
    superlink, coordinator = free_port(), free_port()
    home = folder / "cli"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{superlink}"\n'
        f'root-certificates = "{tls.authority}"\n'
    )
    processes.enter_context(
        started(
            folder / "superlink",
            "flower-superlink", f"--ssl-ca-certfile={tls.authority}", f"--ssl-certfile={tls.server}",
            f"--ssl-keyfile={tls.key}", "--enable-supernode-auth", "--host=127.0.0.1",
            f"--port={superlink}",
        )
    )  # fmt: skip
    wait_until_listening(superlink)
    for site in SITES:
        start_site(processes, folder, site, anchors, superlink, tls.authority)
    overrides = [
        f"anchors={folder}/anchors.json", "anchor_share=0.5", f"coordinator.port={coordinator}",
        f"coordinator.public_address=localhost:{coordinator}",
        f"coordinator.certificate={tls.server}", f"coordinator.private_key={tls.key}",
        "data.options.root=not-needed", "exchange.rows=features", "batch_size=64", *settings,
    ]  # fmt: skip
    config = {
        "peers": "trio",
        "data": "image_folder",
        "run-dir": str(folder / "run"),
        "hydra-overrides": shlex.join(overrides),
    }
    run_config = " ".join(f"{key}={json.dumps(value)}" for key, value in config.items())
    run("flwr", "run", ".", "here", "--stream", f"--run-config={run_config}", home=home)


def start_site(
    processes: contextlib.ExitStack,
    folder: Path,
    site: str,
    anchors: Path,
    superlink: int,
    authority: Path,
) -> None:
    """Starts what one organisation runs: the process with the model, and Flower's SuperNode."""
    place = folder / site
    place.mkdir(mode=0o700)
    key = make_node_key(folder / "keys", site)
    run("flwr", "supernode", "register", f"{key}.pub", "here", "--name", site, home=folder / "cli")
    address = f"unix:{place}/peer.sock"
    processes.enter_context(
        started(
            place / "peer",
            "dogo-fed", "peer", f"listen={address}", f"root_certificates={authority}",
            f"run_dir={place}/runs", "peers=trio", *shared(anchors),
            f"peers.{site}.data={folder}/images/{site}",
            f"peers.{site}.data.options.image_size=32",
        )
    )  # fmt: skip
    config = f'peer="{site}" peer-address="{address}"'
    processes.enter_context(
        started(
            place / "supernode",
            "flower-supernode", f"--superlink=127.0.0.1:{superlink}",
            f"--root-certificates={authority}", f"--auth-supernode-private-key={key}",
            f"--port={free_port()}", f"--node-config={config}",
        )
    )  # fmt: skip


def make_images(folder: Path) -> None:
    """Writes anchors without labels, and each site's images in folders by class."""
    whole = digits_m().train
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))
    write(folder / "anchors", whole, order[:NUM_ANCHORS], by_class=False)
    rest = order[NUM_ANCHORS:]
    for place, site in enumerate(SITES):
        is_wanted = torch.isin(whole.labels[rest], torch.tensor(CLASSES[site]))
        own = rest[is_wanted][place * NUM_PRIVATE : (place + 1) * NUM_PRIVATE]
        write(folder / site, whole, own, by_class=True)


def write(folder: Path, source: object, ids: torch.Tensor, *, by_class: bool) -> None:
    """Writes images as PNG."""
    images_NCHW, labels_N = source.images(ids), source.labels[ids]  # type: ignore[attr-defined]
    for number, image_CHW in enumerate(images_NCHW):
        place = folder / f"digit-{int(labels_N[number])}" if by_class else folder
        place.mkdir(parents=True, exist_ok=True)
        write_png(image_CHW, str(place / f"{number:04d}.png"))


def run(program: str, *arguments: str, home: Path | None = None) -> None:
    """Prints a command and runs it to its end.

    Raises:
        SystemExit: it failed.
    """
    command = [str(BIN / program), *arguments]
    print(f"$ {program} {shlex.join(arguments)}", flush=True)
    status = subprocess.run(command, cwd=REPOSITORY, env=environment(home), check=False).returncode
    if status != 0:
        sys.exit(f"{program} ended with status {status}")


@contextlib.contextmanager
def started(folder: Path, program: str, *arguments: str) -> Iterator[None]:
    """Prints a command and runs it until the block ends; its output is in `folder`/log."""
    folder.mkdir(parents=True, exist_ok=True)
    print(f"$ {program} {shlex.join(arguments)} &", flush=True)
    with (folder / "log").open("ab") as log:
        process = psutil.Popen(
            [str(BIN / program), *arguments],
            cwd=REPOSITORY,
            env=environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
    finally:
        family = [process, *process.children(recursive=True)] if process.is_running() else []
        if family:
            process.terminate()
        _, left = psutil.wait_procs(family, timeout=20.0)
        for one in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait(timeout=20.0)


def environment(home: Path | None) -> dict[str, str]:
    """Returns the environment of a process; Flower keeps what it keeps in FLWR_HOME."""
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"
    own = {} if home is None else {"FLWR_HOME": str(home)}
    quiet = {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "GRPC_VERBOSITY": "NONE",  # else gRPC writes a line for each stranger whose TLS fails
    }
    return {**os.environ, **quiet, **own, "PATH": path}


def free_port() -> int:
    """Returns a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_listening(port: int) -> None:
    """Waits until something listens on a port.

    Raises:
        TimeoutError: nothing does within the time.
    """
    deadline_s = time.monotonic() + STARTED_WITHIN_S
    while time.monotonic() < deadline_s:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise TimeoutError(f"nothing listens on port {port} after {STARTED_WITHIN_S:g} s")


if __name__ == "__main__":
    main()
