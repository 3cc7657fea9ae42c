"""What a terminal shows beside warnings: the reports, and what is measured before there are any."""

from __future__ import annotations

import logging

import pytest

from server.terminal_log import log_to_terminal


@pytest.mark.parametrize(
    ("name", "level", "is_shown"),
    [
        ("dogo_fed.reporting.summary", logging.INFO, True),
        ("dogo_fed.engine.fastest", logging.INFO, True),
        ("dogo_fed.engine.session", logging.INFO, False),
        ("torch", logging.WARNING, True),
    ],
)
def test_a_line_is_shown_or_only_logged(name, level, is_shown, monkeypatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    log_to_terminal()
    (handler,) = root.handlers
    record = logging.LogRecord(name, level, __file__, 1, "a line", None, None)
    assert bool(handler.filter(record)) is is_shown
