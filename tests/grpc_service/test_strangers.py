"""Whoever can reach the port but does not know the secret, or does not speak the language."""

from __future__ import annotations

import socket
import threading

import grpc
import pytest

from dogo_fed.coordination.state import Membership
from dogo_fed.errors import Refused
from dogo_fed.wire import codec
from dogo_fed.wire import dogo_pb2 as pb
from dogo_fed.wire.dogo_pb2_grpc import CoordinationStub
from dogo_fed.wire.secret import (
    CREDENTIAL_KEY,
    PEER_KEY,
    credential_of,
    is_same_secret,
    metadata_of,
    new_secret,
    speaker,
)
from tests.support.distributions import (
    ADA,
    AGREEMENT,
    BOB,
    RUN_ID,
    WIRE,
    distribution,
    joined,
    swap,
    ticket,
)
from tests.support.unfinished_calls import ended_calls

CREDENTIAL = credential_of("s3cret", RUN_ID, ADA)
RIGHT = metadata_of(ADA, CREDENTIAL)
SENDER = pb.Sender(peer="ada", incarnation="ada-9")
REQUESTS = {
    "Join": pb.JoinRequest(sender=SENDER, run_id=RUN_ID, agreement=AGREEMENT),
    "Exchange": pb.ExchangeRequest(
        sender=SENDER,
        ticket=codec.encode_ticket(ticket(0)),
        distribution=WIRE.encode(distribution(0)),
    ),
    "Report": pb.ReportRequest(sender=SENDER, steps=[pb.StepReport(step=1)]),
    "Leave": pb.LeaveRequest(sender=SENDER),
}


@pytest.fixture
def channel(site):
    with grpc.insecure_channel(site.address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield channel


def test_the_requests_cover_every_method():
    methods = pb.DESCRIPTOR.services_by_name["Coordination"].methods_by_name
    assert set(REQUESTS) == set(methods)


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        metadata_of(ADA, ""),
        metadata_of(ADA, CREDENTIAL[:-1]),
        metadata_of(ADA, CREDENTIAL + "0"),
        metadata_of(ADA, CREDENTIAL.upper()),
        metadata_of(ADA, "s3cret"),
        metadata_of(ADA, credential_of("s3cret", "run-2", ADA)),
        metadata_of(ADA, credential_of("s3cret", RUN_ID, BOB)),
        metadata_of("mallory", credential_of("s3cret", RUN_ID, "mallory")),
        metadata_of("", credential_of("s3cret", RUN_ID, "")),
        ((CREDENTIAL_KEY, CREDENTIAL),),
        ((PEER_KEY, ADA), ("authorization", CREDENTIAL)),
        ((PEER_KEY, ADA), (CREDENTIAL_KEY + "-bin", CREDENTIAL.encode())),
    ],
)
@pytest.mark.parametrize("method", REQUESTS)
def test_without_the_secret_every_method_is_closed_and_nothing_changes(
    site, channel, method, metadata
):
    with pytest.raises(grpc.RpcError) as caught:
        getattr(CoordinationStub(channel), method)(REQUESTS[method], timeout=5, metadata=metadata)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "s3cret" not in caught.value.details() and CREDENTIAL not in caught.value.details()
    memberships = site.service.call(
        lambda calls: [calls.coordinator.membership(peer) for peer in (ADA, BOB)]
    )
    assert memberships == [Membership.EXPECTED, Membership.EXPECTED]
    assert site.sink.records == []


def test_a_stranger_can_not_push_out_a_peer_that_is_in(site, channel):
    client = site.client(ADA)
    client.join(AGREEMENT)
    for method, request in REQUESTS.items():
        with pytest.raises(grpc.RpcError):
            getattr(CoordinationStub(channel), method)(request, timeout=5)
    assert client.report([], [], None) is False
    assert site.service.call(lambda calls: calls.coordinator.membership(ADA)) is Membership.PRESENT


def test_what_a_stranger_sends_is_not_even_parsed(channel):
    call = channel.unary_unary("/dogo.v1.Coordination/Exchange")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"\xff" * 100, timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_stranger_is_refused_before_there_is_a_message(channel):
    never = threading.Event()

    def messages():
        never.wait(20)
        yield b""

    call = channel.stream_unary("/dogo.v1.Coordination/Exchange")
    try:
        with pytest.raises(grpc.RpcError) as caught:
            call(messages(), timeout=5)
    finally:
        never.set()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_messages_that_strangers_begin_and_never_finish_are_not_kept(site):
    """Else thousands of connections could hold as many bytes as the largest message has, each."""
    method, size = "/dogo.v1.Coordination/Exchange", site.wire.limit_bytes - 100
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", site.port), timeout=5) as line:
            assert ended_calls(line, method, 32, size) == 32
    assert swap(joined(site, ADA, BOB), 0)[0].teachers == (BOB,)


def test_an_unknown_method_is_closed_to_strangers_too(channel):
    call = channel.unary_unary("/dogo.v1.Coordination/Shell")
    for metadata, code in (
        ((), grpc.StatusCode.UNAUTHENTICATED),
        (RIGHT, grpc.StatusCode.UNIMPLEMENTED),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=5, metadata=metadata)
        assert caught.value.code() is code


def test_a_client_with_the_wrong_credential_is_told_so(site):
    with pytest.raises(Refused, match="does not take this peer's credential"):
        site.client(ADA, credential="guess").join(AGREEMENT)


def test_a_credential_is_of_one_peer_in_one_run_under_one_secret():
    made = {
        credential_of(secret, run, peer)
        for secret in ("s", "t")
        for run in ("r", "rp", "")
        for peer in ("p", "rp", "")
    }
    assert len(made) == 18 and all(len(one) == 64 for one in made)
    known = {ADA: CREDENTIAL}
    assert speaker(known, RIGHT) == ADA
    assert speaker(known, None) is None
    assert speaker(known, metadata_of(BOB, CREDENTIAL)) is None
    assert speaker(known, ((PEER_KEY, b"ada"), (CREDENTIAL_KEY, CREDENTIAL))) is None


def test_strangers_are_one_counted_line_in_the_log(site, channel, caplog):
    with caplog.at_level("INFO"):
        for _ in range(200):
            with pytest.raises(grpc.RpcError):
                CoordinationStub(channel).Leave(REQUESTS["Leave"], timeout=5)
        site.service.stop()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "a stranger called without a credential" in caplog.text
    assert "a stranger 199 more times" in caplog.text


def test_a_secret_is_long_new_and_compared_as_a_whole():
    one, other = new_secret(), new_secret()
    assert one != other and len(one) == 64
    assert is_same_secret(one, one) and not is_same_secret(one, other)
    assert not is_same_secret("s3cret", "s3cret\u00e9")


@pytest.mark.parametrize("method", REQUESTS)
@pytest.mark.parametrize(
    "garbage", [b"\xff" * 40, b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x02\xc3\x28"]
)
def test_garbage_in_a_call_fails_that_call_only(site, channel, method, garbage):
    call = channel.unary_unary(f"/dogo.v1.Coordination/{method}")
    with pytest.raises(grpc.RpcError) as caught:
        call(garbage, timeout=5, metadata=RIGHT)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert site.client(ADA).join(AGREEMENT) == 0


@pytest.mark.parametrize("method", REQUESTS)
def test_an_empty_message_is_refused_in_words(site, channel, method):
    call = channel.unary_unary(f"/dogo.v1.Coordination/{method}")
    data = call(b"", timeout=5, metadata=RIGHT)
    reply = getattr(pb, f"{method}Reply").FromString(data)
    assert reply.HasField("refusal") and reply.refusal.message
    assert site.sink.records == []


@pytest.mark.parametrize(
    "noise",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00" * 3000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 3000,
    ],
)
def test_noise_on_the_port_does_not_disturb_the_run(site, noise):
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", site.port), timeout=5) as line:
            line.sendall(noise)
    ends = [site.client(peer) for peer in (ADA, BOB)]
    for seed, end in enumerate(ends):
        end.join(AGREEMENT)
        end.publish(ticket(0), distribution(seed))
    assert ends[0].collect(ticket(0)).teachers == (BOB,)


def test_who_knows_the_secret_and_claims_an_absurd_step_is_refused_in_words(site, channel):
    site.client(ADA)
    stub = CoordinationStub(channel)
    stub.Join(REQUESTS["Join"], timeout=5, metadata=RIGHT)
    request = pb.ExchangeRequest()
    request.CopyFrom(REQUESTS["Exchange"])
    request.ticket.CopyFrom(codec.encode_ticket(ticket(2**64 - 1)))
    reply = stub.Exchange(request, timeout=5, metadata=RIGHT)
    assert reply.refusal.code == pb.STALE_TICKET
