"""A message there and back between the two ends of the envelope, and what is no reply."""

from __future__ import annotations

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from clients.flower.envelope import answer_to, request_in
from dogo_fed.wire import dogo_pb2 as pb
from server.flower.envelope import last_line, packed, unpacked
from tests.support.fake_flower import answered, failed

pytestmark = pytest.mark.usefixtures("flower_identity")

REQUEST = pb.HostRequest(run_id="first", peer="ada", until_step=7)
REPLY = pb.HostReply(state=pb.RUNNING, where="here", next_step=3)


def sent() -> Message:
    return packed(REQUEST, "train.round", 5, 90.0, "4")


def test_what_one_end_packs_the_other_unpacks() -> None:
    message = sent()
    metadata = message.metadata
    assert (metadata.dst_node_id, metadata.message_type, metadata.group_id) == (
        5,
        "train.round",
        "4",
    )
    assert metadata.ttl == 300, "Flower's own is 12 hours"
    assert request_in(message) == (REQUEST.SerializeToString(), 90.0)
    assert unpacked(answer_to(message, REPLY), most_bytes=1000) == REPLY


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (lambda message: failed(message, "Traceback\nOSError: gone\n"), "OSError: gone"),
        (lambda message: answered(message, b"\xff\xff"), "it answered with something that is no"),
        (lambda message: answered(message, b"x" * 1001), "1001 bytes are more than the 1000 of"),
        (lambda message: Message(RecordDict(), reply_to=message), "no reply: 'dogo'"),
        (
            lambda message: Message(
                RecordDict({"dogo": ConfigRecord({"reply": "text"})}), reply_to=message
            ),
            "the reply is no bytes",
        ),
    ],
    ids=["error", "garbage", "large", "empty", "text"],
)
def test_what_is_no_reply_says_why(reply, why) -> None:
    with pytest.raises(ValueError) as caught:
        unpacked(reply(sent()), most_bytes=1000)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (None, "no reason given"),
        ("\n  \n", "no reason given"),
        ("one", "one"),
        ("Traceback\n  File x\nValueError: the cause\n\n", "ValueError: the cause"),
        ("x" * 1000, "x" * 297 + "..."),
    ],
)
def test_of_an_error_the_telling_line_is_shown(text, shown) -> None:
    assert last_line(text) == shown
