"""Watching over processes, with a clock in the test's hand."""

from __future__ import annotations

import pytest

from dogo_fed.coordination import standstill
from server.hosts.watch import Overdue, Watch
from tests.support.distributions import Clock


class Made:
    """A process that has ended when it is told so."""

    def __init__(self) -> None:
        self.end: str | None = None
        self.kills = 0
        self.fails = False

    def ending(self) -> str | None:
        return self.end

    def kill(self) -> None:
        self.kills += 1
        if self.fails:
            raise OSError("it would not die")


@pytest.fixture
def clock() -> Clock:
    return Clock(100.0)


@pytest.fixture
def watch(clock: Clock) -> Watch[str, str]:
    return Watch(silence_s=10.0, silence_setting="silence_s", stop_within_s=5.0, clock=clock)


@pytest.fixture(autouse=True)
def no_standstill(monkeypatch) -> None:
    """The clock is put forward by more than a loop would ever be away."""
    monkeypatch.setattr(standstill, "_LONGEST_PAUSE_S", 1000.0)


def ended(watch: Watch[str, str], last_word_s: float = 100.0) -> dict[str, object]:
    return dict(watch.look(lambda key: last_word_s))


def test_an_end_is_told_once(watch) -> None:
    first, second = Made(), Made()
    watch.add("first", first)
    watch.add("second", second)
    assert ended(watch) == {}
    first.end = "well"
    assert ended(watch) == {"first": "well"}
    assert ended(watch) == {} and list(watch.running) == ["second"]
    assert first.kills == 0


def test_the_silent_are_ended_with_the_setting_that_says_so(watch, clock) -> None:
    silent, heard = Made(), Made()
    watch.add("silent", silent)
    watch.add("heard", heard)
    clock.now_s = 110.5
    found = dict(watch.look(lambda key: 100.0 if key == "silent" else 101.0))
    assert found == {"silent": Overdue("said nothing for 10 s (silence_s)")}
    assert (silent.kills, heard.kills) == (1, 0)


def test_a_stop_has_a_deadline_and_begins_once(watch, clock) -> None:
    slow = Made()
    watch.add("slow", slow)
    assert watch.begin_stop() and watch.is_stopping
    clock.now_s = 104.0
    assert not watch.begin_stop()
    assert ended(watch, 104.0) == {}
    clock.now_s = 105.5
    assert ended(watch, 105.0) == {"slow": Overdue("did not stop within 5 s")}
    assert slow.kills == 1


def test_who_ends_at_the_last_moment_has_ended_well(watch, clock) -> None:
    process = Made()
    watch.add("process", process)
    clock.now_s = 200.0
    process.end = "well"
    assert ended(watch) == {"process": "well"} and process.kills == 0


def test_the_time_in_which_nobody_looked_is_nobodys_silence(watch, clock) -> None:
    """This process was stopped, and the others could not be heard."""
    process = Made()
    watch.add("process", process)
    clock.now_s = 1200.0
    assert ended(watch) == {}
    clock.now_s = 1209.0
    assert ended(watch) == {}
    clock.now_s = 1210.5
    assert ended(watch) == {"process": Overdue("said nothing for 10 s (silence_s)")}


def test_the_time_in_which_nobody_looked_does_not_shorten_a_stop(watch, clock) -> None:
    process = Made()
    watch.add("process", process)
    watch.begin_stop()
    clock.now_s = 1200.0
    assert ended(watch, 1200.0) == {}
    clock.now_s = 1205.5
    assert ended(watch, 1205.0) == {"process": Overdue("did not stop within 5 s")}


def test_a_process_can_be_followed_by_another_of_its_key(watch) -> None:
    first, second = Made(), Made()
    watch.add("peer", first)
    first.end = "died"
    assert ended(watch) == {"peer": "died"}
    watch.kill("peer")
    watch.add("peer", second)
    assert first.kills == 1 and watch.running["peer"] is second


def test_at_the_end_all_are_killed_even_if_one_will_not_die(watch) -> None:
    processes = [Made() for _ in range(3)]
    for number, process in enumerate(processes):
        watch.add(str(number), process)
    processes[1].fails = True
    processes[0].end = "well"
    assert ended(watch) == {"0": "well"}
    with pytest.raises(OSError, match="would not die"):
        watch.kill_all()
    assert [process.kills for process in processes] == [1, 1, 1]
