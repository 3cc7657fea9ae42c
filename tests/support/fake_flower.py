"""A Flower grid, hosts and peers that the tests of Flower's messages share: no Flower runtime, no Ray."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from flwr.app import ConfigRecord, Error, Message, RecordDict

from clients.peer.run import PeerEnvironment
from dogo_fed.assignment import Assignment
from dogo_fed.config_text import from_mapping
from dogo_fed.contracts import Ending, Outcome, PeerId, Ticket
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.errors import CoordinatorLost, DogoError, ExchangeTimeout, StaleTicket
from dogo_fed.wire import dogo_pb2 as pb
from tests.support.distributions import distribution

WITHIN_S = 15.0
"""After so long, what a test waits for will not come."""


def comes_true(condition: Callable[[], bool], within_s: float) -> bool:
    """Waits for what another thread does, for there is no clock to put forward; says whether it came."""
    give_up_at_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > give_up_at_s:
            return False
        time.sleep(0.002)
    return True


def eventually(condition: Callable[[], bool], what: str, within_s: float = WITHIN_S) -> None:
    assert comes_true(condition, within_s), f"waited in vain: {what}"


class SleptTime:
    """In place of the module `time`: passes only when somebody sleeps; things can happen then."""

    def __init__(self) -> None:
        self.now_s = 500.0
        self._later: list[tuple[float, Callable[[], object]]] = []

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        for due in [one for one in self._later if one[0] <= self.now_s]:
            self._later.remove(due)
            due[1]()

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        """Lets something happen while somebody sleeps."""
        self._later.append((self.now_s + seconds, action))


class AtOnce:
    """In place of a pool of threads, where time is only counted."""

    def submit(
        self, action: Callable[[Message], Message | None], message: Message
    ) -> Future[Message | None]:
        future = Future[Message | None]()
        try:
            future.set_result(action(message))
        except Exception as error:
            future.set_exception(error)
        return future

    def shutdown(self, **options: bool) -> None:
        """Has nothing to end."""


class FakeGrid:
    """Flower's messages without Flower: a node is a function from message to reply.

    Like Flower's, it keeps replies until they are pulled and hands each out once. A function that
    returns None never replies; one that raises replies with an error. `trouble` is called before every
    call, by its name, and may raise.
    """

    def __init__(
        self,
        nodes: Mapping[int, Callable[[Message], Message | None]],
        pool: ThreadPoolExecutor | AtOnce | None = None,
    ) -> None:
        self.nodes = dict(nodes)
        self.trouble: Callable[[str], None] = lambda call: None
        self.pushed: list[Message] = []
        self.pulled_twice: list[str] = []
        self._pool = pool or ThreadPoolExecutor(8)
        self._open: dict[str, tuple[Message, Future[Message | None]]] = {}

    def get_node_ids(self) -> list[int]:
        self.trouble("get_node_ids")
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Leaves out the ids of messages to unknown nodes, as Flower's simulation does."""
        self.trouble("push_messages")
        ids = []
        for message in messages:
            handler = self.nodes.get(message.metadata.dst_node_id)
            if handler is None:
                continue
            message_id = f"message-{len(self.pushed)}"
            message.metadata.__dict__["_message_id"] = message_id
            self.pushed.append(message)
            self._open[message_id] = (message, self._pool.submit(handler, message))
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        self.trouble("pull_messages")
        replies = []
        for message_id in list(message_ids):
            message, future = self._open.get(message_id, (None, None))
            if message is None or future is None:
                self.pulled_twice.append(message_id)
                continue
            if not future.done():
                continue
            error = future.exception()
            reply = failed(message, str(error)) if error is not None else future.result()
            if reply is not None:
                del self._open[message_id]
                replies.append(reply)
        return replies

    def kinds(self, node_id: int | None = None) -> list[str]:
        """Returns the types of the messages that were pushed, in order."""
        return [
            message.metadata.message_type
            for message in self.pushed
            if node_id in (None, message.metadata.dst_node_id)
        ]

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def failed(message: Message, reason: str) -> Message:
    """Returns the reply of a handler that raised."""
    return Message(Error(code=2, reason=reason), reply_to=message)


def request_of(message: Message) -> pb.HostRequest:
    """Returns what the ServerApp sends in a message."""
    body = message.content.config_records["dogo"]["request"]
    assert isinstance(body, bytes)
    return pb.HostRequest.FromString(body)


def answered(message: Message, body: bytes) -> Message:
    """Returns the reply of our ClientApp."""
    return Message(RecordDict({"dogo": ConfigRecord({"reply": body})}), reply_to=message)


def carries_to(handle: Callable[[bytes], bytes]) -> Callable[[Message], Message]:
    """Returns a node that passes messages on to a host."""
    return lambda message: answered(message, handle(request_of(message).SerializeToString()))


class ToyPeers:
    """Stands in for `run_assignment`: peers that do no training, but everything that is seen of them.

    Attributes:
        steps: per start (peer, number), the steps done.
        saved: per peer, the steps at which it saved itself.
        crash: called before every step with the peer, its start and the step; may raise.
    """

    def __init__(self, total_steps: int, first_step: int = 0) -> None:
        self.total_steps = total_steps
        self.first_step = first_step
        self.steps: dict[tuple[str, int], list[int]] = {}
        self.teachers: dict[tuple[str, int], list[tuple[PeerId, ...]]] = {}
        self.saved: dict[str, list[int]] = {}
        self.endings: list[tuple[str, int, Ending]] = []
        self.crash: Callable[[str, int, int], None] = lambda peer, number, step: None
        self.batch_digest: Callable[[int], str] = lambda step: f"images-of-step-{step}"
        self.agreement: Mapping[str, str] = {}
        self._lock = threading.Lock()

    def __call__(self, assignment: Assignment, around: PeerEnvironment) -> Ending:
        try:
            ending = self._run(assignment, around)
        except (CoordinatorLost, ExchangeTimeout) as error:
            ending = Ending(Outcome.CUT_OFF, str(error))
        except DogoError as error:
            ending = Ending(Outcome.UNFIT, str(error))
        with self._lock:
            self.endings.append((assignment.peer, assignment.number, ending))
        return ending

    def _run(self, assignment: Assignment, around: PeerEnvironment) -> Ending:
        config = from_mapping(assignment.config)
        peer = PeerId(assignment.peer)
        key = (assignment.peer, assignment.number)
        done = self.steps.setdefault(key, [])
        taught = self.teachers.setdefault(key, [])
        link = None if around.open_link is None else around.open_link(peer, config)
        step = self.first_step
        if link is not None:
            step = max(step, link.join(self.agreement))
        is_stopped = False
        try:
            while step < self.total_steps and not is_stopped:
                around.await_turn(step, lambda: False)
                self.crash(peer, assignment.number, step)
                is_alone = link is None or not config.exchanges
                is_between = is_alone or step % config.exchange.every_steps
                if is_between and around.stop_requested():
                    is_stopped = True
                    break
                if is_between:
                    done.append(step)
                    step += 1
                    continue
                assert link is not None, "who exchanges has a link"
                ticket = Ticket(assignment.run_id, 1, step, self.batch_digest(step))
                link.publish(ticket, distribution(step, config.batch_size))
                try:
                    signal = link.collect(ticket)
                except StaleTicket:
                    if not link.report([], [], None):
                        raise
                    is_stopped = True
                    break
                done.append(step)
                taught.append(signal.teachers)
                step = max(signal.next_step, step + 1)
                is_stopped = signal.stop and step < self.total_steps
        finally:
            with self._lock:
                self.saved.setdefault(peer, []).append(step)
        if link is not None:
            link.close()
        return Ending(Outcome.STOPPED if is_stopped else Outcome.FINISHED)


def assignment_of(run: LoadedRun, peer: PeerId, run_id: str, **changes: object) -> Assignment:
    """Returns what the supervisor would send to this peer."""
    from dogo_fed.config_text import to_mapping

    settings: dict[str, object] = {
        "peer": peer,
        "run_id": run_id,
        "run_dir": "",
        "address": "",
        "credential": "",
        "checkpoint_step": None,
        "config": to_mapping(run.config),
    }
    return Assignment(**{**settings, **changes})  # type: ignore[arg-type]
