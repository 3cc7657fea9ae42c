"""Which images a step uses: the same everywhere, each once in an epoch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dogo_fed.data.schedule import Schedule

CHEAP = settings(max_examples=30, derandomize=True)
sizes = st.tuples(st.integers(1, 40), st.integers(1, 40)).filter(lambda pair: pair[1] <= pair[0])


def ids_of_epoch(schedule: Schedule, epoch: int) -> torch.Tensor:
    steps = schedule.steps_per_epoch
    return torch.cat([schedule.sample_ids(epoch * steps + step) for step in range(steps)])


@CHEAP
@given(sizes, st.integers(0, 2**63 - 1), st.integers(0, 3))
def test_an_epoch_shows_every_image_at_most_once_in_full_batches(size, seed, epoch):
    num_samples, batch_size = size
    schedule = Schedule(seed=seed, num_samples=num_samples, batch_size=batch_size)
    ids = ids_of_epoch(schedule, epoch)
    assert schedule.steps_per_epoch == num_samples // batch_size
    assert len(ids) == num_samples - num_samples % batch_size
    assert len(set(ids.tolist())) == len(ids)
    assert ids.dtype == torch.int64
    assert 0 <= ids.min() <= ids.max() < num_samples
    assert len(schedule.sample_ids(epoch)) == batch_size


def test_an_epoch_is_a_permutation_where_the_batch_divides_the_data_set():
    ids = ids_of_epoch(Schedule(seed=0, num_samples=40, batch_size=8), 3)
    assert sorted(ids.tolist()) == list(range(40))
    assert ids.tolist() != list(range(40))


def test_the_rest_that_is_dropped_is_another_one_in_another_epoch():
    schedule = Schedule(seed=0, num_samples=41, batch_size=8)
    dropped = {
        (set(range(41)) - set(ids_of_epoch(schedule, epoch).tolist())).pop() for epoch in range(8)
    }
    assert len(dropped) > 3


def test_every_epoch_has_its_own_order():
    schedule = Schedule(seed=0, num_samples=64, batch_size=64)
    assert len({tuple(schedule.sample_ids(step).tolist()) for step in range(20)}) == 20


@CHEAP
@given(st.lists(st.integers(0, 200), min_size=1, max_size=10))
def test_it_does_not_matter_what_was_asked_before(steps):
    """A peer that joins late, or goes on from a checkpoint, gets what the others have."""
    torch.manual_seed(len(steps))
    used = Schedule(seed=3, num_samples=50, batch_size=7)
    for step in steps:
        used.sample_ids(step)
    fresh = Schedule(seed=3, num_samples=50, batch_size=7)
    assert torch.equal(used.sample_ids(steps[0]), fresh.sample_ids(steps[0]))
    assert used.digest(steps[0]) == fresh.digest(steps[0])


def test_another_seed_is_another_order():
    first, second = (Schedule(seed=seed, num_samples=50, batch_size=50) for seed in (0, 1))
    assert not torch.equal(first.sample_ids(0), second.sample_ids(0))
    assert first.digest(0) != second.digest(0)


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    Schedule(seed=0, num_samples=50, batch_size=5).digest(11)
    assert torch.equal(torch.get_rng_state(), before)


class Fixed(Schedule):
    """A schedule with given ids, to look at the digest alone."""

    def __init__(self, ids: list[int]) -> None:
        super().__init__(seed=0, num_samples=len(ids), batch_size=len(ids))
        self.ids = ids

    def sample_ids(self, step: int) -> torch.Tensor:
        return torch.tensor(self.ids)


def test_the_digest_depends_on_images_and_on_their_order():
    digests = [Fixed(ids).digest(0) for ids in ([0, 1, 2], [0, 2, 1], [0, 1, 3], [0, 1, 2, 2])]
    assert len(set(digests)) == len(digests)
    assert Fixed([0, 1, 2]).digest(5) == digests[0]
    assert all(len(digest) == 32 and int(digest, 16) >= 0 for digest in digests)


@pytest.mark.parametrize("batch_size", [0, -1, 11])
def test_an_impossible_batch_is_refused(batch_size):
    with pytest.raises(
        ValueError, match=f"between 1 and the data set's 10 images, not {batch_size}"
    ):
        Schedule(seed=0, num_samples=10, batch_size=batch_size)
