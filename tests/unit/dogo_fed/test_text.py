"""Text of somebody else: visible, bounded, and never more than one line of ours."""

from __future__ import annotations

import io
import logging
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dogo_fed.contracts import Event, EventKind, PeerId, PeerResult
from dogo_fed.exit_status import say
from dogo_fed.reporting.log_file import LineFormatter, log_file
from dogo_fed.text import block, one_line

FORGED = (
    "ok\n2026-11-28 12:00:00,000 INFO server.x all is well\x1b[2J\x1b]0;owned\x07\u202egpj\r\x9b1A"
)


@given(st.text(), st.integers(10, 60))
def test_any_text_becomes_one_printable_line_of_bounded_length(text, most):
    line = one_line(text, most)
    assert len(line) <= most
    assert all(one.isprintable() or unicodedata.category(one) == "Zs" for one in line)
    line.encode("utf-8")


@pytest.mark.parametrize(
    "text", ["", "resnet18(width=16)", "größer · 深層 学習", "a\u00a0b", "1\\n2"]
)
def test_what_people_write_stays_as_it_is(text):
    assert one_line(text) == text


def test_what_is_escaped_can_be_read():
    assert one_line("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\nc"
    assert one_line("\udc80") == "\\udc80"
    assert one_line("x" * 30, 10) == "xxxxxxx..."


def test_a_block_keeps_its_lines_but_none_of_them_starts_like_one_of_ours():
    assert block("first\nsecond\x1b[2J\r\nthird") == "first\n    second\\x1b[2J\n    third"


def assert_clean(text):
    assert "\x1b" not in text and "\x07" not in text and "\x9b" not in text and "\u202e" not in text
    assert not any(line.startswith("2026-11-28") for line in text.splitlines()[1:])


def test_a_log_file_takes_no_forged_line_and_no_escape_sequence(tmp_path):
    logger = logging.getLogger("dogo_fed.test_text")
    with log_file(tmp_path / "x.log", ("dogo_fed",)):
        logger.warning("peer says %s", FORGED)
        try:
            raise ValueError(FORGED)
        except ValueError:
            logger.exception("failed")
    lines = (tmp_path / "x.log").read_text(encoding="utf-8").splitlines()
    assert sum(not line.startswith("    ") for line in lines) == 2, "two messages, two lines"
    assert "Traceback" in "".join(lines)
    assert_clean("\n".join(line for line in lines if line.startswith("    ")))
    assert "all is well\\x1b" in lines[0] and "\x1b" not in lines[0]


def test_a_traceback_that_another_formatter_has_kept_is_cleaned_too():
    try:
        raise ValueError(FORGED)
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "m", (), sys.exc_info())
    logging.Formatter().format(record)
    assert "\x1b" not in LineFormatter().format(record)


def test_a_message_of_bounded_length_is_logged_of_any():
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "%s", ("y" * 10_000_000,), None)
    assert len(LineFormatter().format(record)) < 5000


def test_a_failure_on_the_terminal_is_clean(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert say(FORGED, 3) == 3
    assert_clean(sys.stderr.getvalue())


def test_a_record_holds_no_control_characters_however_it_is_made():
    event = Event(kind=EventKind.DATA, message=FORGED * 1000, peer="a\x1b")
    assert event.peer == "a\\x1b" and len(event.message) <= 2000
    with pytest.raises(ValueError, match="EventKind"):
        Event(kind="data\n", message="forged")
    assert_clean(event.message)
    result = PeerResult(PeerId("a"), FORGED, "s\n", 1, 0.1, 0.1, 0.1, 1.0, 0.1, "\x1b", 1)
    assert_clean(result.backbone)
    assert (result.objective, result.state_digest) == ("s\\n", "\\x1b")
    assert len(result.backbone) <= 200
