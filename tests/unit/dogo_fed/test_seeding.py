"""Named random streams: no two names collide, nothing leaks, one thread at a time."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dogo_fed import seeding

names = st.lists(st.one_of(st.integers(), st.text(max_size=5)), max_size=4).map(tuple)


@settings(max_examples=200, derandomize=True)
@given(st.integers(0, 3), names, st.integers(0, 3), names)
def test_different_names_are_different_seeds(seed, first, other_seed, second):
    is_same = (seed, first) == (other_seed, second)
    assert (
        seeding.derive_seed(seed, *first) == seeding.derive_seed(other_seed, *second)
    ) == is_same


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("a", "bc"), ("ab", "c")),
        (("a", "b"), ("b", "a")),
        ((1,), ("1",)),
        (("a",), ("a", "")),
        (("ab",), ("a", "b")),
        ((12,), (1, 2)),
        (("int:1",), (1,)),
        ((), ("",)),
    ],
)
def test_names_that_look_alike_are_different_streams(first, second):
    assert seeding.derive_seed(0, *first) != seeding.derive_seed(0, *second)


def test_seeds_fit_torch_and_never_change():
    """Another number here changes every run ever made: that is a change to numbers."""
    seeds = [seeding.derive_seed(7, "peer", step, "augmentation") for step in range(200)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62
    assert seeds[0] == 3473484800941543872


def test_the_stream_decides_every_draw_and_restores_the_state_before():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    draws = []
    for disturbance in (0, 5):
        torch.randn(disturbance)
        outside = torch.get_rng_state()
        with seeding.stream(3, "peer", 0):
            draws.append(torch.randn(4))
        assert torch.equal(torch.get_rng_state(), outside)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(torch.get_rng_state(), before)
    with seeding.stream(3, "peer", 1):
        assert not torch.equal(torch.randn(4), draws[0])


def test_the_state_is_restored_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(KeyError), seeding.stream(0, "x"):
        torch.randn(3)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)
    with seeding.stream(0, "x"):  # and the way is free again
        pass


def test_streams_of_one_thread_may_be_nested():
    with seeding.stream(0, "outer"):
        expected = torch.randn(4)
    with seeding.stream(0, "outer"):
        first = torch.randn(2)
        with seeding.stream(0, "inner"):
            torch.randn(9)
        second = torch.randn(2)
    with seeding.stream(0, "outer"):
        assert torch.equal(torch.cat([torch.randn(2), torch.randn(2)]), torch.cat([first, second]))
    assert torch.equal(first, expected[:2])


def in_thread(work) -> list[object]:
    results: list[object] = []

    def run():
        try:
            results.append(work())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(timeout=10)
    assert not thread.is_alive(), "a second thread must be refused, not kept waiting"
    return results


def draw_in_stream() -> torch.Tensor:
    with seeding.stream(0, "theirs"):
        return torch.randn(3)


def test_a_second_thread_is_refused_while_a_stream_is_open():
    with seeding.stream(0, "mine"):
        state = torch.get_rng_state()
        (error,) = in_thread(draw_in_stream)
        assert isinstance(error, RuntimeError)
        assert "theirs" in str(error)
        assert torch.equal(torch.get_rng_state(), state), "the refused thread drew nothing"
    (drawn,) = in_thread(draw_in_stream)
    assert torch.equal(drawn, draw_in_stream())


def test_a_generator_is_its_own():
    before = torch.get_rng_state()
    first, second = (
        torch.randn(4, generator=seeding.generator(0, "schedule", 1)) for _ in range(2)
    )
    other = torch.randn(4, generator=seeding.generator(0, "schedule", 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
