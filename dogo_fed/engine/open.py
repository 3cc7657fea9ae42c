"""The one way to make a peer and open its session, in every host."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path

from dogo_fed.atomic import remove_partials
from dogo_fed.contracts import PeerId
from dogo_fed.data.labels import why_no_accuracy
from dogo_fed.engine.feed import Feed
from dogo_fed.engine.helper_process import PassSettings
from dogo_fed.engine.helpers import Helpers, with_synchronised_statistics
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.engine.peer import Peer
from dogo_fed.engine.session import PeerSession
from dogo_fed.errors import Refused
from dogo_fed.exchange.base import Link
from dogo_fed.provenance import DataFacts
from dogo_fed.reporting.sink import Sink
from dogo_fed.storage.checkpoint import Progress
from dogo_fed.storage.peer_folder import PeerFolder
from dogo_fed.storage.run_folder import note_site

logger = logging.getLogger(__name__)


def open_session(
    run: LoadedRun,
    run_dir: Path,
    peer_id: PeerId,
    link: Link,
    sink: Sink,
    *,
    checkpoint_step: int | None,
    takes_newest: bool = False,
    is_site: bool = False,
) -> PeerSession:
    """Builds a peer, puts it where the run goes on, brings its images near, and lets it join.

    Args:
        run: its settings and data.
        run_dir: the run folder; its name is the run's id.
        peer_id: which peer.
        link: the peer's connection to the coordinator.
        sink: gets its reports.
        checkpoint_step: the step of the checkpoint that the peer goes on from; None is the
            beginning. Later checkpoints of this peer are set aside, since it will write them again.
        takes_newest: whether the peer goes on from its own newest checkpoint instead, because it
            died in a run that still goes on.
        is_site: whether the peer's settings are this site's own. Then its terminal tells what there
            is to know about its images; elsewhere its log does.

    Raises:
        ConfigError: the peer can't be built, or a site's peer began with other settings.
        Refused: it is to begin a new run where an earlier one of the same name has left its weights.
        CheckpointError: the checkpoint can't be used.
        DataError: the peer's private images are not those that it was trained on, or can't be read.
        ExchangeError: the coordinator refuses it, or does not answer.
    """
    folder = PeerFolder(
        run_dir,
        peer_id,
        keep_checkpoints=run.config.checkpoint.keep,
        lag_steps=run.plan.exchange_every_steps,
    )
    if run.config.resume is None and checkpoint_step is None and not takes_newest:
        _check_unused(folder, run_dir.name, peer_id)
    goes_on = checkpoint_step is not None or takes_newest
    peer = _with_helpers(run.build_peer(peer_id, goes_on=goes_on), run)
    progress = _restore(peer, folder, checkpoint_step, takes_newest)
    own = run.own_images(peer_id)
    if own is not None:
        folder.check_private_images(DataFacts.of(own), begins=progress.step == 0)
    if is_site and not peer.is_frozen:
        note_site(run_dir, run.config, peer_id, begins=progress.step == 0)
    for note in _notes_on_images(run, peer_id):
        logger.log(logging.WARNING if is_site else logging.INFO, "peer=%s %s", peer_id, note)
    # On a GPU this may take minutes. Once it has joined, others wait for its first distribution.
    feed = Feed.of(run.passes[peer_id], peer.device, with_labels=peer.objective.uses_labels)
    next_step = link.join(run.agreement)
    if run.config.exchanges and next_step > progress.step:
        logger.warning(
            "peer=%s goes on at step %d; its checkpoint is of step %d",
            peer_id,
            next_step,
            progress.step,
        )
        progress.step = next_step
    exchange = link if run.config.exchanges else None
    return PeerSession(
        peer,
        run,
        run_dir.name,
        exchange=exchange,
        sink=sink,
        folder=folder,
        progress=progress,
        feed=feed,
    )


def _notes_on_images(run: LoadedRun, peer_id: PeerId) -> Iterator[str]:
    """Yields what whoever looks after a peer should know about its images, a sentence each."""
    config, own = run.config, run.own_images(peer_id)
    for note in () if own is None else own.notes:
        yield f"private images: {note}"
    yield from run.nearly_black(peer_id)
    evaluated = run.data_of(peer_id).evaluated
    reason, k = why_no_accuracy(evaluated), run.knn_k(peer_id)
    if reason is not None:
        yield f"no kNN and no linear probe: {reason}; the health of the features is told"
    elif config.eval.knn_k not in (None, k):
        yield (
            f"kNN takes {k} neighbours in place of eval.knn_k={config.eval.knn_k}: so many training "
            "images have a class"
        )
    has_private = run.data_of(peer_id).own is not run.data.shared
    if config.expects_private and not has_private and config.peers[peer_id].frozen_from is None:
        yield (
            f"no private images: a pass holds {config.anchors_per_step} anchors and nothing else, where "
            f"batch_size={config.batch_size} has room for more; name them by peers.{peer_id}.data"
        )


def _with_helpers(peer: Peer, run: LoadedRun) -> Peer:
    """Returns the peer with the processes that do parts of its passes, if it has any."""
    config, settings = run.config, run.config.peers[peer.id]
    if settings.data_parallel == 1:
        return peer
    if settings.sync_batchnorm:
        with_synchronised_statistics(peer.objective, peer.id, peer.device)
    pass_settings = PassSettings(
        peer=peer.id,
        run_seed=peer.run_seed,
        device_type=peer.device.type,
        half=peer.half,
        memory_format=peer.memory_format,
        chunk_size=peer.chunk_size,
        is_compiled=config.compile,
        uses_cuda_graphs=config.cuda_graphs,
        threads=config.threads_per_peer,
    )
    helpers = Helpers(peer.objective, settings.data_parallel, pass_settings)
    return dataclasses.replace(peer, helpers=helpers)


def _check_unused(folder: PeerFolder, run_id: str, peer_id: PeerId) -> None:
    """Checks that a peer of a new run has nothing to write over.

    Whoever starts a run looks into its folder. But a site has a folder of its own for it, of the same
    name. What is said goes to the coordinator, so it names no path.

    Raises:
        Refused: a run of this name has been here.
    """
    if folder.checkpoints.steps():
        what = "checkpoints"
    elif folder.encoder_path.exists():
        what = "an encoder"
    else:
        return
    raise Refused(
        f"peer {peer_id!r} has {what} of an earlier run {run_id!r}, and this new run would write over "
        "that. Go on with that run by resume=<its folder> (with afresh=true from step 0), give the new "
        "one another name by run_dir=<folder>, or move the peer's folder of that run away"
    )


def _restore(
    peer: Peer, folder: PeerFolder, checkpoint_step: int | None, takes_newest: bool
) -> Progress:
    """Loads the checkpoint into the peer and returns the peer's progress."""
    store = folder.checkpoints
    parts = (peer.objective, peer.optimizer, peer.scaler)
    remove_partials(store.folder)  # on the machine where this peer's last process was killed
    if takes_newest:
        return store.load_latest(*parts) or Progress()
    progress = Progress() if checkpoint_step is None else store.load(checkpoint_step, *parts)
    store.set_aside_after(-1 if checkpoint_step is None else checkpoint_step)
    return progress
