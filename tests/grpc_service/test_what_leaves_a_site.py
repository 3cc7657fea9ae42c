"""All that a peer with private images sends in a run: only rows over anchors, losses and scores differ."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from configs.compose import compose_run
from dogo_fed.wire import dogo_pb2 as pb
from server.coordinator.calls import CoordinatorCalls
from server.hosts.launch import launch

SITE = "wide"
SETTINGS = (
    "host=processes", "peers=pair", "data=synthetic", "data.options.size=48",
    "data.options.test_size=16", "batch_size=16", "steps=6", "steps_per_round=3", "eval.knn_k=4",
    "eval.linear_epochs=1", "+data@peers.wide.data=synthetic",
    "peers.wide.data.options.test_size=16",
)  # fmt: skip
FIRST = ("peers.wide.data.options.size=40", "peers.wide.data.options.seed=1")
OTHER = (
    "peers.wide.data.options.size=90", "peers.wide.data.options.seed=2",
    "peers.wide.data.options.num_classes=7",
)  # fmt: skip
TINY = ("peers.wide.data.options.size=5", "peers.wide.data.options.seed=3")
"""Fewer than the 8 for which a pass has room."""

TIMES = ("compute_s", "wait_s", "exchange_s", "seconds", "bytes_down")
"""The answer to a peer that nobody waited for is a few bytes shorter."""
LOSSES = ("ssl_loss", "mutual_kl")
SCORES = (
    "knn_top1", "linear_top1", "knn_top1_untrained", "feature_std", "rankme", "alignment",
    "uniformity", "rankme_untrained",
)  # fmt: skip
DIGEST = ("state_digest",)
"""Of the trained weights, 64 hex digits; sent once, at the end."""


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch):
    """All requests that the coordinator gets, by call and peer, as they are on the wire."""
    requests = defaultdict(list)

    def spy(name: str) -> None:
        call = getattr(CoordinatorCalls, name)

        def spied(self, peer, request):
            requests[name, str(peer)].append(request.SerializeToString(deterministic=True))
            return call(self, peer, request)

        monkeypatch.setattr(CoordinatorCalls, name, spied)

    for name in ("join", "offer", "report", "leave"):
        spy(name)
    return requests


def sent(heard, folder: Path, *private: str) -> dict[str, list[bytes]]:
    heard.clear()
    launch(compose_run([*SETTINGS, *private, f"run_dir={folder / 'run'}"]))
    return {name: list(found) for (name, peer), found in heard.items() if peer == SITE}


def without_sender(kind, content: bytes):
    message = kind.FromString(content)
    assert message.sender.peer == SITE
    message.sender.incarnation = ""  # random
    return message


def reports_in(contents: list[bytes]):
    """Steps, rounds and result in the order in which they were made, however they were batched."""
    steps, rounds, results = [], [], []
    for content in contents:
        message = without_sender(pb.ReportRequest, content)
        steps += message.steps
        rounds += message.rounds
        results += [message.result] if message.HasField("result") else []
    return [*steps, *rounds, *results]


def blanked(message, *names: str):
    """A copy with these fields set to a fixed value, whether they were set or not."""
    copy = type(message)()
    copy.CopyFrom(message)
    for name in names:
        if name in {field.name for field in message.DESCRIPTOR.fields}:
            setattr(copy, name, "" if name in DIGEST else 0)
    return copy.SerializeToString(deterministic=True)


VARIANT = (
    "peers.wide.teacher=ema", "exchange.encoding=log8", "exchange.symmetric=true",
)  # fmt: skip


@pytest.mark.grpc
@pytest.mark.parametrize(
    ("settings", "others", "row_bytes", "matrices"),
    [
        pytest.param((), OTHER, 8 * 4, ["distribution"], id="default"),
        pytest.param((), TINY, 8 * 4, ["distribution"], id="tiny", marks=pytest.mark.slow),
        pytest.param(
            VARIANT, OTHER, 8 + 8, ["distribution", "reverse"], id="variant", marks=pytest.mark.slow
        ),
    ],
)
def test_messages_depend_on_private_images_by_rows_losses_and_scores_alone(
    settings, others, row_bytes, matrices, heard, tmp_path
) -> None:
    """Also where an average teaches, rows are rounded, and both directions are sent."""
    first, other = (
        sent(heard, tmp_path / name, *private, *settings)
        for name, private in (("first", FIRST), ("other", others))
    )
    assert first.keys() == other.keys() == {"join", "offer", "report", "leave"}
    for name, kind in (("join", pb.JoinRequest), ("leave", pb.LeaveRequest)):
        one, two = ([without_sender(kind, content) for content in x[name]] for x in (first, other))
        assert one == two and len(one) == 1
    assert [len(content) for content in first["offer"]] == [
        len(content) for content in other["offer"]
    ]
    assert len(first["offer"]) == 6
    rows = []
    for one, two in zip(first["offer"], other["offer"], strict=True):
        messages = [without_sender(pb.ExchangeRequest, content) for content in (one, two)]
        for name in matrices:
            assert all(message.HasField(name) for message in messages)
            sent_both = [getattr(message, name) for message in messages]
            rows.append([matrix.rows for matrix in sent_both])
            for matrix in sent_both:
                assert matrix.size == 8, "anchors only: half of the pass"
                matrix.ClearField("rows")
                matrix.ClearField("negative_entropy")
        assert messages[0] == messages[1]
    assert all(len(one) == len(two) == 8 * row_bytes for one, two in rows)
    assert any(one != two for one, two in rows), "else the two runs would prove nothing"
    told, told_too = reports_in(first["report"]), reports_in(other["report"])
    allowed = (*TIMES, *LOSSES, *SCORES, *DIGEST)
    assert [blanked(one, *allowed) for one in told] == [blanked(one, *allowed) for one in told_too]
    assert len(told) == 6 + 3 + 1


@pytest.mark.slow
@pytest.mark.grpc
def test_equal_private_images_give_equal_messages_but_for_times(heard, tmp_path) -> None:
    """So the differences above come from the private images."""
    first, again = (sent(heard, tmp_path / name, *FIRST) for name in ("first", "again"))
    for one, two in zip(first["offer"], again["offer"], strict=True):
        assert without_sender(pb.ExchangeRequest, one) == without_sender(pb.ExchangeRequest, two)
    told, told_too = reports_in(first["report"]), reports_in(again["report"])
    assert [blanked(one, *TIMES) for one in told] == [blanked(one, *TIMES) for one in told_too]
