"""The attacks, a function each: what it sends, and what is left of it."""

from __future__ import annotations

import contextlib
import math
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from clients.peer.grpc_link import GrpcLink
from dogo_fed.contracts import PeerId, SimilarityDistribution, Ticket
from dogo_fed.wire import dogo_pb2 as pb
from dogo_fed.wire.secret import CREDENTIAL_KEY, PEER_KEY
from tests.attack.scene import Target
from tests.support import ray_intruder
from tests.support.unfinished_calls import ended_calls

METHODS = ("Join", "Exchange", "Report", "Leave")
ESCAPES = "\x1b[2J\x1b]0;owned\x07\n2026-11-28 12:00:00,000 INFO server all is well\u202e"


class Insider:
    """The third peer of the run: it has joined, and does what it likes."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.peer: PeerId = target.peers[2]
        self.link: GrpcLink = target.link(self.peer)
        self.agreement = dict(target.run.agreement)
        self.metadata = ((PEER_KEY, self.peer), (CREDENTIAL_KEY, target.credentials[self.peer]))
        self.link.join(self.agreement)
        self.link._call(self.link._stub.Leave, pb.LeaveRequest(sender=self.sender), 5.0)

    @property
    def sender(self) -> pb.Sender:
        """Who it says it is."""
        return self.link._sender

    def close(self) -> None:
        """Ends its connection."""
        self.link.close()

    def say(self, method: str, request: object) -> str:
        """Makes a call; returns the refusal, "taken", or gRPC's status."""
        try:
            reply = getattr(self.link._stub, method)(request, timeout=30, metadata=self.metadata)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "refused" if reply.HasField("refusal") else "taken"

    def report(self, **parts: object) -> str:
        """Reports these parts of a ReportRequest."""
        return self.say("Report", pb.ReportRequest(sender=self.sender, **parts))


def counted(answers: Counter[str]) -> str:
    """Returns e.g. "600 refused, 3 taken"."""
    return ", ".join(f"{count} {answer}" for answer, count in answers.most_common())


# ---- strangers ----


@contextlib.contextmanager
def stranger(target: Target) -> Iterator[grpc.Channel]:
    """Gives a connection of somebody who only knows the address."""
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(target.address, options=options) as channel:
        yield channel


def calls_of_a_stranger(target: Target, num_calls: int = 2000) -> str:
    """Calls without a credential, with wrong ones, and with names that there are not."""
    chances, answers = random.Random(0), Counter[str]()
    with stranger(target) as channel:
        for number in range(num_calls):
            call = channel.unary_unary(f"/dogo.v1.Coordination/{chances.choice(METHODS)}")
            metadata = chances.choice(
                [
                    (),
                    ((PEER_KEY, target.peers[0]), (CREDENTIAL_KEY, "0" * 64)),
                    ((PEER_KEY, f"nobody-{number}"), (CREDENTIAL_KEY, "0" * 64)),
                    ((PEER_KEY, target.peers[0]),),
                ]
            )
            try:
                call(chances.randbytes(300), timeout=20, metadata=metadata)
                answers["taken"] += 1
            except grpc.RpcError as error:
                answers[error.code().name] += 1
    return counted(answers)


def noise(target: Target, num_lines: int = 300) -> str:
    """Connects and sends what is no gRPC."""
    chances, (host, _, port) = random.Random(1), target.address.rpartition(":")
    for _ in range(num_lines):
        with (
            contextlib.suppress(OSError),
            socket.create_connection((host, int(port)), timeout=10) as line,
        ):
            line.sendall(
                chances.choice(
                    [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b""]
                )
                + chances.randbytes(500)
            )
    return f"{num_lines} connections"


def unfinished_messages(target: Target, num_lines: int = 64) -> str:
    """Begins 32 messages on each of many connections, as large as they may be; finishes none."""
    host, _, port = target.address.rpartition(":")
    refused, size = 0, target.run.wire_format.limit_bytes - 1000
    with contextlib.ExitStack() as lines:
        for _ in range(num_lines):
            line = lines.enter_context(socket.create_connection((host, int(port)), timeout=10))
            refused += ended_calls(line, "/dogo.v1.Coordination/Exchange", 32, size)
    return f"{refused} of {32 * num_lines} refused"


def ray_s_ports(target: Target) -> str:
    """Asks the ports of a run's own Ray for a job and for Ray's calls, without its token."""
    ports, answers = ray_intruder.ports_of_a_whole_ray(target.pid), Counter[str]()
    mark = target.folder.with_name("mark")
    for token in (None, "0" * 64):
        for statuses in ray_intruder.submit_jobs(ports, mark, token).values():
            answers.update(str(status) for status in statuses)
        for endings in ray_intruder.call(ports, token).values():
            answers.update(endings)
    assert ports, "nothing listens"
    assert not mark.exists(), "a stranger has run code"
    return counted(answers)


# ---- insiders ----


def many_rounds(insider: Insider) -> str:
    """Sends one message of 12,500 round reports."""
    rounds = [pb.RoundReport(round=number) for number in range(12_500)]
    return insider.report(rounds=rounds)


def absurd_numbers(insider: Insider) -> str:
    """Reports steps, times and losses that no run has."""
    answers = Counter[str]()
    for step in (
        pb.StepReport(step=2**28, round=1),
        pb.StepReport(step=2**64 - 1, round=1),
        pb.StepReport(step=1, round=1, compute_s=1e308),
        pb.StepReport(step=1, round=1, ssl_loss=float("inf")),
        pb.StepReport(step=1, round=1, bytes_up=2**64 - 1),
    ):
        answers[insider.report(steps=[step])] += 1
    answers[insider.report(rounds=[pb.RoundReport(round=2**32 - 1, step=2**63)])] += 1
    return counted(answers)


def names_that_are_formulas(insider: Insider) -> str:
    """Leaves a result whose names break a formula, a line and a terminal."""
    result = pb.PeerResult(
        backbone="$\\frac{$" + ESCAPES, objective=ESCAPES, state_digest="ab", steps_trained=1
    )
    return insider.report(result=result)


def wrong_joins(insider: Insider, seconds: float = 5.0) -> str:
    """Joins wrongly for a while, with large and poisoned agreements."""
    wrong = {**insider.agreement, "config.seed": ESCAPES * 100, f"config.{ESCAPES}": "x" * 30_000}
    return _for_a_while(
        seconds,
        lambda number: insider.say(
            "Join",
            pb.JoinRequest(
                sender=insider.sender, run_id=insider.target.run_id + ESCAPES, agreement=wrong
            ),
        ),
    )


def coming_and_going(insider: Insider, seconds: float = 5.0) -> str:
    """Joins and leaves as ever new processes."""

    def again(number: int) -> str:
        sender = pb.Sender(peer=insider.peer, incarnation=f"again-{number}")
        insider.say(
            "Join",
            pb.JoinRequest(
                sender=sender, run_id=insider.target.run_id, agreement=insider.agreement
            ),
        )
        return insider.say("Leave", pb.LeaveRequest(sender=sender))

    outcome = _for_a_while(seconds, again)
    insider.link.join(insider.agreement)
    insider.say("Leave", pb.LeaveRequest(sender=insider.sender))
    return outcome


def another_s_seat(insider: Insider) -> str:
    """Speaks for an honest peer: joins, offers, reports and leaves in its name."""
    answers = Counter[str]()
    sender = pb.Sender(peer=insider.target.peers[0], incarnation="stolen")
    for method, request in valid_requests(insider, sender).items():
        answers[insider.say(method, request)] += 1
    return counted(answers)


def many_reports(insider: Insider, seconds: float = 5.0) -> str:
    """Reports all steps of the run, again and again, as ever new processes."""

    def again(number: int) -> str:
        insider.sender.incarnation = f"reporter-{number}"
        insider.say(
            "Join",
            pb.JoinRequest(
                sender=insider.sender, run_id=insider.target.run_id, agreement=insider.agreement
            ),
        )
        insider.say("Leave", pb.LeaveRequest(sender=insider.sender))
        plan = insider.target.run.plan
        return insider.report(
            steps=[pb.StepReport(step=step, round=plan.round_of(step)) for step in range(512)]
        )

    return _for_a_while(seconds, again)


# ---- mutated messages ----


def valid_requests(insider: Insider, sender: pb.Sender) -> dict[str, Message]:
    """Returns a right message for every call."""
    run, size = insider.target.run, insider.target.run.config.batch_size
    p_NN = np.full((size, size), 1 / size, np.float32)
    ticket = Ticket(insider.target.run_id, 1, 0, run.schedule.digest(0))
    return {
        "Join": pb.JoinRequest(
            sender=sender, run_id=insider.target.run_id, agreement=insider.agreement
        ),
        "Exchange": run.wire_format.encode_published(
            sender, ticket, SimilarityDistribution(p_NN, -float(np.log(size)))
        ),
        "Report": pb.ReportRequest(
            sender=sender,
            steps=[pb.StepReport(round=1, step=step, ssl_loss=2.0) for step in range(5)],
            rounds=[pb.RoundReport(round=0, step=0, knn_top1=0.5)],
            result=pb.PeerResult(backbone="b", objective="o", state_digest="ab", steps_trained=3),
        ),
        "Leave": pb.LeaveRequest(sender=sender),
    }


def mutated(request: Message, chances: random.Random) -> bytes:
    """Returns a message with fields that have odd values, or bytes changed, or both."""
    changed = type(request)()
    changed.CopyFrom(request)
    kind = chances.randrange(3)
    for _ in range(chances.randint(1, 3) if kind else 0):
        _alter(changed, chances)
    body = bytearray(changed.SerializeToString())
    for _ in range(chances.randint(1, 3) if kind < 2 else 0):
        place = chances.randrange(len(body) + 1)
        match chances.randrange(4):
            case 0:
                body[place : place + 1] = chances.randbytes(1)
            case 1:
                del body[place : place + chances.randint(1, 8)]
            case 2:
                body[place:place] = chances.randbytes(chances.randint(1, 8))
            case _:
                body[place:place] = body[place : place + chances.randint(1, 40)]
    return bytes(body)


def _alter(message: Message, chances: random.Random) -> None:
    """Gives one field, at any depth, another value; or one more or fewer of it."""
    field = chances.choice(message.DESCRIPTOR.fields)
    value = getattr(message, field.name)
    if field.message_type is None:
        if field.is_repeated:
            value.append(_odd(field.cpp_type, chances))
        else:
            odd = _odd(field.cpp_type, chances)
            is_bytes = field.type == FieldDescriptor.TYPE_BYTES
            setattr(message, field.name, str(odd).encode() if is_bytes else odd)
    elif field.message_type.GetOptions().map_entry:
        value[_odd_text(chances)] = _odd_text(chances)
    elif not field.is_repeated:
        value.SetInParent()
        _alter(value, chances)
    elif value and chances.random() < 0.3:
        value.extend([value[0]] * chances.choice([1, 20, 600]))
    else:
        _alter(
            value.add() if chances.random() < 0.3 or not value else chances.choice(value), chances
        )


def _odd(kind: int, chances: random.Random) -> object:
    match kind:
        case FieldDescriptor.CPPTYPE_STRING:
            return _odd_text(chances)
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return chances.choice([math.nan, math.inf, -math.inf, 1e308, -1.0, 0.0, 1e-320])
        case FieldDescriptor.CPPTYPE_BOOL:
            return chances.random() < 0.5
        case FieldDescriptor.CPPTYPE_UINT64:
            return chances.choice([0, 1, 999, 2**28, 2**63, 2**64 - 1])
        case FieldDescriptor.CPPTYPE_ENUM:
            return chances.choice([0, 1, 2])
        case _:
            return chances.choice([0, 1, 2, 2**16, 2**32 - 1])


def _odd_text(chances: random.Random) -> str:
    return chances.choice(
        ["", "a", ESCAPES, "x" * 5000, "$\\frac{$", "\x00", "config.seed", "\u202e"]
    )


def mutated_messages(insider: Insider, num_messages: int, seed: int = 0) -> Counter[str]:
    """Sends mutated messages with a right credential, four at a time; returns the answers."""
    requests = valid_requests(insider, insider.sender)
    replies = {method: getattr(pb, f"{method}Reply") for method in METHODS}
    channel = insider.link._channel

    def send(worker: int) -> Counter[str]:
        chances, answers = random.Random(f"{seed}/{worker}"), Counter[str]()
        for _ in range(num_messages // 4):
            method = chances.choice(METHODS)
            call = channel.unary_unary(f"/dogo.v1.Coordination/{method}")
            body = mutated(requests[method], chances)
            try:
                reply = replies[method].FromString(
                    call(body, timeout=60, metadata=insider.metadata)
                )
                answers["refused" if reply.HasField("refusal") else "taken"] += 1
            except grpc.RpcError as error:
                answers[error.code().name] += 1
        return answers

    with ThreadPoolExecutor(4) as pool:
        return sum(pool.map(send, range(4)), Counter[str]())


# ---- connections ----


@contextlib.contextmanager
def idle_connections(target: Target, wanted: int) -> Iterator[int]:
    """Holds idle connections, half of them with the first bytes of HTTP/2; gives their number."""
    host, _, port = target.address.rpartition(":")
    lines: list[socket.socket] = []
    try:
        for number in range(wanted):
            line = socket.create_connection((host, int(port)), timeout=10)
            lines.append(line)
            if number % 2:
                with contextlib.suppress(OSError):
                    line.sendall(
                        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
                    )
        yield len(lines)
    finally:
        for line in lines:
            line.close()


def _for_a_while(seconds: float, act: Callable[[int], str]) -> str:
    answers, end_s, number = Counter[str](), time.monotonic() + seconds, 0
    while time.monotonic() < end_s:
        answers[act(number)] += 1
        number += 1
    return counted(answers)
