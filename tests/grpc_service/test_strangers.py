"""Whoever can reach the port but does not know the secret, or does not speak the language."""

from __future__ import annotations

import socket

import grpc
import pytest

from dogo_fed.coordination.state import Membership
from dogo_fed.errors import Refused
from dogo_fed.wire import codec
from dogo_fed.wire import dogo_pb2 as pb
from dogo_fed.wire.dogo_pb2_grpc import CoordinationStub
from dogo_fed.wire.secret import METADATA_KEY, is_same_secret, new_secret
from tests.support.distributions import ADA, AGREEMENT, BOB, RUN_ID, WIRE, distribution, ticket

RIGHT = ((METADATA_KEY, "s3cret"),)
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
        ((METADATA_KEY, ""),),
        ((METADATA_KEY, "s3cre"),),
        ((METADATA_KEY, "s3crets"),),
        ((METADATA_KEY, "S3CRET"),),
        (("authorization", "s3cret"),),
        ((METADATA_KEY + "-bin", b"s3cret"),),
    ],
)
@pytest.mark.parametrize("method", REQUESTS)
def test_without_the_secret_every_method_is_closed_and_nothing_changes(
    site, channel, method, metadata
):
    with pytest.raises(grpc.RpcError) as caught:
        getattr(CoordinationStub(channel), method)(REQUESTS[method], timeout=5, metadata=metadata)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "s3cret" not in caught.value.details()
    standings = site.service.call(
        lambda calls: [calls.coordinator.standing(peer) for peer in (ADA, BOB)]
    )
    assert standings == [Membership.EXPECTED, Membership.EXPECTED]
    assert site.sink.records == []


def test_a_stranger_can_not_push_out_a_peer_that_is_in(site, channel):
    client = site.client(ADA)
    client.join(AGREEMENT)
    for method, request in REQUESTS.items():
        with pytest.raises(grpc.RpcError):
            getattr(CoordinationStub(channel), method)(request, timeout=5)
    assert client.report([], [], None) is False
    assert site.service.call(lambda calls: calls.coordinator.standing(ADA)) is Membership.PRESENT


def test_what_a_stranger_sends_is_not_even_parsed(channel):
    call = channel.unary_unary("/dogo.v1.Coordination/Exchange")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"\xff" * 100, timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_an_unknown_method_is_closed_to_strangers_too(channel):
    call = channel.unary_unary("/dogo.v1.Coordination/Shell")
    for metadata, code in (
        ((), grpc.StatusCode.UNAUTHENTICATED),
        (RIGHT, grpc.StatusCode.UNIMPLEMENTED),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=5, metadata=metadata)
        assert caught.value.code() is code


def test_a_client_with_the_wrong_secret_is_told_so(site):
    with pytest.raises(Refused, match="does not know this run's secret"):
        site.client(ADA, secret="guess").join(AGREEMENT)


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
