"""What a pass holds: private images and anchors, in step where all peers share, and never mixed up."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from configs.compose import compose_run
from dogo_fed.agreement import differences
from dogo_fed.config import LossOn
from dogo_fed.data.manifest import Manifest
from dogo_fed.data.source import TensorImages
from dogo_fed.data.synthetic import synthetic
from dogo_fed.engine.loaded_run import load_run
from dogo_fed.engine.passes import images_seen
from dogo_fed.engine.step import absorb, propose, show
from dogo_fed.errors import ConfigError, DataError
from dogo_fed.provenance import DataFacts
from dogo_fed.run.prepare import notes_of, prepare
from tests.support.tiny_run import TINY
from tests.support.toy_peers import signal_of

SIZE = 240
CPU = torch.device("cpu")


def numbered():
    """Images whose pixels say which image they are."""
    whole = synthetic(size=SIZE, test_size=40, num_classes=4)
    pixels = torch.arange(SIZE, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 16, 16)
    return dataclasses.replace(whole, train=TensorImages(pixels.clone(), whole.train.labels))


def loaded(*settings):
    base = [one for one in TINY if not one.startswith(("data.", "steps"))]
    return load_run(compose_run([*base, "steps=40", *settings]), numbered())


def cut_run(*settings):
    return loaded("partition=iid", "partition.anchors=0.3", *settings)


def seen(images):
    return images.images_NCHW[:, 0, 0, 0].tolist()


def parts(run, peer):
    whole = torch.arange(SIZE)
    anchors = set(
        run.data.shared.train.images(whole[: len(run.data.shared.train)])[:, 0, 0, 0].tolist()
    )
    own = run.data_of(peer).own.train
    return set(own.images(whole[: len(own)])[:, 0, 0, 0].tolist()), anchors


def test_a_pass_is_private_images_and_then_the_anchors_that_all_peers_see():
    run = cut_run()
    assert (run.config.batch_size, run.config.anchors_per_step, run.wire_format.batch_size) == (
        16,
        8,
        8,
    )
    anchors_by_peer = []
    for peer in run.peer_ids:
        private, anchors = parts(run, peer)
        for step in (0, 7, 39):
            images = run.images_of(peer, step, with_labels=True)
            numbers = seen(images)
            assert set(numbers[:8]) <= private and set(numbers[8:]) <= anchors
            assert len(set(numbers)) == 16 and images.shared == slice(8, None)
            assert images.own is None and len(images.labels_P) == 16
            assert images.labels_P.tolist() == numbered().train.labels[numbers].tolist()
        anchors_by_peer.append(seen(run.images_of(peer, 7, with_labels=False))[8:])
    assert anchors_by_peer[0] == anchors_by_peer[1]


def test_peers_see_no_image_of_each_other():
    run = cut_run()
    first, second = (
        {
            number
            for step in range(40)
            for number in seen(run.images_of(peer, step, with_labels=False))[:8]
        }
        for peer in run.peer_ids
    )
    assert not first & second and len(first) > 60


def test_passes_depend_on_the_step_alone():
    run, again = cut_run(), cut_run()
    peer = run.peer_ids[0]
    later = [seen(again.images_of(peer, step, with_labels=False)) for step in (31, 4, 18)]
    assert [seen(run.images_of(peer, step, with_labels=False)) for step in range(40)][18] == later[
        2
    ]
    assert seen(run.images_of(peer, 4, with_labels=False)) == later[1]


def test_an_epoch_of_private_images_has_each_at_most_once():
    run = cut_run()
    peer = run.peer_ids[0]
    epoch = len(run.data_of(peer).own.train) // 8
    numbers = [
        n for step in range(epoch) for n in seen(run.images_of(peer, step, with_labels=False))[:8]
    ]
    assert len(set(numbers)) == len(numbers)


def test_between_exchanges_a_pass_may_be_all_private():
    run = cut_run("anchors_at=exchanges", "exchange.every_steps=4")
    peer = run.peer_ids[0]
    private, anchors = parts(run, peer)
    for step in range(12):
        images = run.images_of(peer, step, with_labels=True)
        numbers = seen(images)
        assert len(numbers) == 16 == len(images.labels_P)
        wanted = 8 if step % 4 == 0 else 0
        assert len(set(numbers) & anchors) == wanted and len(set(numbers) & private) == 16 - wanted
        assert len(range(16)[images.shared]) == wanted


@pytest.mark.parametrize(("on", "own"), [("private", slice(0, 8)), ("anchors", slice(8, None))])
def test_the_own_loss_sees_what_it_is_told(on, own):
    run = cut_run("peers.wide.ssl_on=" + on)
    images = run.images_of("wide", 3, with_labels=True)
    assert images.own == own and len(images.labels_P) == 8
    assert images.labels_P.tolist() == numbered().train.labels[seen(images)][own].tolist()


def test_a_peer_without_anchors_has_all_of_the_batch_for_itself():
    run = cut_run("anchor_share=0", "exchange.enabled=false")
    private, _ = parts(run, "wide")
    numbers = seen(run.images_of("wide", 5, with_labels=False))
    assert len(numbers) == 16 and set(numbers) <= private


def test_a_small_site_has_no_image_twice_in_a_pass():
    run = loaded(
        "partition=iid", "partition.anchors=0.9", "partition.least_images=12", "batch_size=64"
    )
    images = run.images_of("wide", 11, with_labels=False)
    numbers = seen(images)
    assert len(numbers) == 12 + 32 == len(set(numbers)) and images.shared == slice(12, None)


def test_everything_shared_is_the_pass_it_always_was():
    run = loaded()
    images = run.images_of("wide", 3, with_labels=True)
    assert images.own is images.shared is None
    assert seen(images) == run.schedule.sample_ids(3).tolist()
    assert run.agreement["share_of_anchors"] == "1.0"


def test_what_is_published_is_about_anchors_only():
    run = cut_run()
    first, second = (run.build_peer(peer, CPU) for peer in run.peer_ids)
    shown = [
        show(peer, propose(peer, run.images_of(peer.id, 0, with_labels=False), 0))
        for peer in (first, second)
    ]
    assert [one.p_NN.shape for one in shown] == [(8, 8), (8, 8)]
    losses = absorb(
        first, propose(first, run.images_of(first.id, 0, with_labels=False), 0), signal_of(shown[1])
    )
    assert losses.mutual_kl > 0


def test_the_whole_data_set_is_what_a_partition_is_evaluated_on():
    run = cut_run()
    for peer in run.peer_ids:
        assert len(run.data_of(peer).evaluated.train) == SIZE
    assert run.provenance().data.num_train == SIZE == run.provenance("wide").data.num_train
    assert run.plan.steps_per_round == 100  # whatever the number of anchors


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (["anchor_share=0"], "anchor_share=0 leaves no image to exchange about"),
        (["anchor_share=1.5"], "from 0 to 1"),
        (["anchor_share=0", "exchange.enabled=false"], "leaves peer resnet without images"),
        (["partition=iid", "anchor_share=1"], "peer resnet would never see its private images"),
        (["peers.wide.ssl_on=private"], "this peer has no private images"),
        (
            ["partition=iid", "peers.wide.ssl_on=anchors", "anchors_at=exchanges"],
            "needs anchors at every step",
        ),
        (["partition=iid", "partition.anchors=0.01", "partition.least_images=2", "batch_size=64"],
         "a pass would hold 32 anchors"),
    ],
)  # fmt: skip
def test_settings_that_make_no_pass_are_refused(settings, why):
    with pytest.raises(ConfigError, match=why):
        loaded(*settings)


ALL_PRIVATE_BETWEEN = ("anchor_share=1", "anchors_at=exchanges", "exchange.every_steps=4")


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        (["anchor_share=1"], r"type anchor_share=0\.93 or less, or anchors_at=exchanges with"),
        (["anchor_share=0.99"], r"every pass has 16 anchors .*; type anchor_share=0\.93 or less"),
        (["anchor_share=1", "anchors_at=exchanges"], r"exchange\.every_steps=2 or more"),
        (["batch_size=2"], r"type batch_size=3 or more, with anchor_share=0\.5"),
        (["ssl_on=private", "anchor_share=0.94"], r"holds 1 that it sees; type anchor_share=0\.87"),
        (["ssl_on=private", "batch_size=3"], r"type batch_size=4 or more, with anchor_share=0\.5"),
        (["ssl_on=private", *ALL_PRIVATE_BETWEEN], r"holds 0 that it sees; .*ssl_on=both"),
    ],
)
def test_no_peer_trains_without_its_private_images_and_no_loss_on_fewer_than_two(settings, advice):
    named = [one.replace("ssl_on=", "peers.wide.ssl_on=") for one in settings]
    with pytest.raises(ConfigError, match=advice):
        cut_run(*named)


@pytest.mark.parametrize(
    ("settings", "private", "anchors"),
    [
        (["anchor_share=0.93"], {1}, {15}),
        (["peers.wide.ssl_on=private", "anchor_share=0.87"], {2}, {14}),
        (["batch_size=3"], {1}, {2}),
        (["peers.wide.ssl_on=private", "batch_size=4"], {2}, {2}),
        ([*ALL_PRIVATE_BETWEEN], {0, 16}, {16, 0}),
    ],
)
def test_a_pass_may_hold_as_few_private_images_as_its_loss_can_do_with(settings, private, anchors):
    run = cut_run("peers=pair", *settings)
    held = [run.images_of("wide", step, with_labels=False) for step in range(8)]
    counted = [len(range(len(one.images_NCHW))[one.shared]) for one in held]
    assert set(counted) == anchors
    left = {len(one.images_NCHW) - number for one, number in zip(held, counted, strict=True)}
    assert left == private and run.plan.steps_per_round == 100
    peer = run.build_peer("wide", CPU)
    for one in held[:2]:
        assert torch.isfinite(propose(peer, one, 0).output.ssl_loss.detach())


def test_a_launcher_and_a_coordinator_refuse_passes_without_room_for_what_is_elsewhere():
    """They know the share, and not how many images there are."""
    base = [one for one in TINY if not one.startswith(("data.", "steps", "host="))]
    far = ["host=flower", "peers=pair", "steps=4", "anchor_share=0.99"]
    for named in ([], UNLIKE):
        config = compose_run([*base, *far, *named])
        with pytest.raises(ConfigError, match="would never see its private images"):
            load_run(config, numbered(), peers=(), is_to_start=True)


def test_a_coordinator_and_its_sites_have_rounds_of_one_length():
    """It does not know which of them have private images."""
    base = [one for one in TINY if not one.startswith(("data.", "steps", "host="))]
    far = [*base, "host=flower", "peers=pair", *ALL_PRIVATE_BETWEEN]
    plans = [load_run(compose_run([*far, *named]), numbered()).plan for named in ((), UNLIKE)]
    assert plans[0] == plans[1] and plans[0].steps_per_round == 100


def test_a_teacher_from_a_weights_file_gets_no_share_of_a_partition(tmp_path):
    weights = tmp_path / "teacher.pth"
    weights.touch()
    without = cut_run()
    teacher = dataclasses.replace(without.config.peers["wide"], frozen_from=str(weights))
    config = dataclasses.replace(
        without.config, peers={**without.config.peers, "a_teacher": teacher}
    )
    run = load_run(config, numbered())
    assert run.cut.to_csv() == without.cut.to_csv()
    assert run.data_of("a_teacher").own is run.data.shared


OTHERS = ("+data@partition.anchors_from=synthetic", "partition.anchors_from.options.size=60",
          "partition.anchors_from.options.test_size=8", "partition.anchors_from.options.seed=9")  # fmt: skip


def test_anchors_may_be_of_another_data_set_and_all_images_are_private_then():
    run = loaded("partition=iid", "partition.anchors=0.5", *OTHERS)
    private = [run.data_of(peer).own for peer in run.peer_ids]
    assert sum(len(own.train) for own in private) == SIZE
    others = synthetic(size=60, test_size=8, seed=9)
    shared = run.data.shared.train
    theirs = {bytes(image.numpy().tobytes()) for image in others.train.images(torch.arange(60))}
    mine = {bytes(image.numpy().tobytes()) for image in shared.images(torch.arange(len(shared)))}
    assert len(mine) == 30 and mine <= theirs
    evaluated = run.data_of(run.peer_ids[0]).evaluated
    assert (len(evaluated.train), len(evaluated.test)) == (SIZE, 40)
    rows = run.cut.to_csv().splitlines()
    assert rows[1] == "anchors,30,8,,,,", "the classes of anchors are not those of the others"
    assert not any(",," in row for row in rows[2:])


def test_all_processes_agree_on_both_data_sets_and_a_start_notes_both():
    run = loaded("partition=iid", "partition.anchors=0.5", *OTHERS)
    again = loaded(
        "partition=iid",
        "partition.anchors=0.5",
        *OTHERS[:-1],
        "partition.anchors_from.options.seed=8",
    )
    told = differences(run.agreement, again.agreement, my_name="a", their_name="b")
    assert [phrase.split()[0] for phrase in told] == ["data_fingerprint"]
    assert run.agreement["cut_fingerprint"] == numbered().fingerprint
    assert "cut_fingerprint" not in cut_run().agreement
    assert cut_run().provenance().anchors is None
    with pytest.raises(DataError, match="the anchors of run x: fingerprint was"):
        run.provenance().check_same_images(again.provenance(), of="run x", instead="stop")


UNLIKE = ("+data@peers.wide.data=synthetic", "peers.wide.data.options.size=50",
          "peers.wide.data.options.test_size=9", "peers.wide.data.options.seed=7")  # fmt: skip


def test_a_site_of_a_partition_may_have_images_of_its_own():
    run, without = cut_run(*UNLIKE), cut_run()
    own = run.data_of("wide").own
    assert own.fingerprint == synthetic(size=50, test_size=9, seed=7).fingerprint
    assert run.data_of("wide").evaluated is own
    assert run.data_of("wide").shared is run.data.shared
    assert len(run.data_of("resnet").own.train) == 168, "all that are no anchors"
    assert run.data.shared.fingerprint == without.data.shared.fingerprint
    assert set(run.cut.private) == {"resnet"}
    assert run.provenance("wide").data == DataFacts.of(own)
    assert run.provenance("resnet").data == run.provenance().data == DataFacts.of(numbered())
    assert (
        seen(run.images_of("wide", 3, with_labels=False))[8:]
        == seen(run.images_of("resnet", 3, with_labels=False))[8:]
    )
    alone = [one.replace("wide", "resnet") for one in UNLIKE]
    with pytest.raises(
        ConfigError, match=r"partition=iid .* all of these have images of their own"
    ):
        cut_run(*UNLIKE, *alone)


def test_what_a_peer_of_a_cut_is_trained_on_is_told_of_its_encoder():
    """Its data set is the whole, most of which only others have seen."""
    run = cut_run("peers=pair")
    assert run.seen_by("wide") == "84 private ones of these (partition=iid) and 72 anchors"
    others = loaded("peers=pair", "partition=iid", "partition.anchors=0.5", *OTHERS)
    assert others.seen_by("wide") == (
        "120 private ones of these (partition=iid) and 30 anchors of synthetic"
    )
    alone = cut_run("peers=pair", "anchor_share=0", "exchange.enabled=false")
    assert alone.seen_by("wide") == "84 private ones of these (partition=iid)"
    assert cut_run("peers=pair", *UNLIKE).seen_by("wide") is None
    assert loaded("peers=pair").seen_by("wide") is None


def test_images_of_a_site_s_own_are_held_against_the_set_that_the_anchors_come_from():
    """They would be trained on and tested with."""
    same = [one.replace("partition.anchors_from", "peers.wide.data") for one in OTHERS]
    with pytest.raises(
        ConfigError, match="of the 60 private training images of peer 'wide', 60 are"
    ):
        cut_run(*OTHERS, *same)


def test_images_of_both_data_sets_are_no_anchors():
    whole = synthetic(size=60, test_size=8, seed=3)
    base = [one for one in TINY if not one.startswith(("data.", "steps"))]
    config = compose_run([*base, "steps=4", "partition=iid", "partition.anchors=1", *OTHERS])
    others = synthetic(size=60, test_size=8, seed=9)
    mixed_NCHW = torch.cat(
        [whole.train.images(torch.arange(50)), others.train.images(torch.arange(10))]
    )
    tested_NCHW = torch.cat(
        [whole.test.images(torch.arange(6)), others.train.images(torch.arange(10, 12))]
    )
    mixed = dataclasses.replace(
        whole,
        train=TensorImages(mixed_NCHW, whole.train.labels),
        test=TensorImages(tested_NCHW, whole.test.labels),
    )
    run = load_run(config, mixed)
    assert len(run.data.shared.train) == 48
    assert run.data.shared.notes[-1].startswith("12 of 60 images of partition.anchors_from")
    assert run.data.shared.notes[-1] in notes_of(run)
    with pytest.raises(ConfigError, match=r"of the 60 images .* 60 are in data too"):
        load_run(config, others)


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["anchor_share=0.25", "anchors_at=exchanges", "exchange.every_steps=3"],
        ["partition=dirichlet", "partition.alpha=0.1", "partition.least_images=4"],
        ["partition=iid", "anchors_at=exchanges", "exchange.every_steps=4"],
        ["partition=iid", "exchange.enabled=false", "anchor_share=0"],
        [*UNLIKE],
        [*UNLIKE, "anchors_at=exchanges", "exchange.every_steps=3"],
    ],
)
def test_as_many_images_are_counted_as_are_seen(settings):
    """A peer without private images sees the anchors alone where another one has some."""
    run = loaded("peers=pair", *settings)
    for peer in run.peer_ids:
        data = run.data_of(peer)
        number = 0 if data.own is data.shared else len(data.own.train)
        passes = run.passes[peer]
        held = sum(
            len(passes.images(step, with_labels=False).images_NCHW)
            for step in range(run.plan.total_steps)
        )
        assert images_seen(run.config, run.plan, number) == held, peer


def test_a_peer_without_private_images_is_told_that_its_passes_are_smaller():
    (note,) = [one for one in notes_of(loaded("peers=pair", *UNLIKE)) if "pass holds" in one]
    assert note == (
        "resnet without private images: a pass holds 8 anchors there, and 16 images elsewhere"
    )
    assert not [one for one in notes_of(cut_run("peers=pair")) if "pass holds" in one]


def test_a_share_without_any_private_image_is_told():
    """As at home without the site's own images: the encoder sees the anchors alone."""
    (note,) = [
        one for one in notes_of(loaded("peers=pair", "anchor_share=0.5")) if "pass holds" in one
    ]
    assert note.startswith("no peer has private images, so a pass holds 8 anchors and nothing else")


def test_private_images_that_are_nearly_black_are_told_on_one_machine():
    run = loaded("peers=pair", *UNLIKE)
    mine = run.private["wide"]
    pixels = torch.full((50, 3, 16, 16), 9, dtype=torch.uint8)
    dark = dataclasses.replace(mine.own, train=TensorImages(pixels, mine.own.train.labels))
    private = {"wide": dataclasses.replace(mine, own=dark)}
    (note,) = [
        one for one in notes_of(dataclasses.replace(run, private=private)) if "nearly black" in one
    ]
    assert note.startswith("the images of peers.wide.data are nearly black")


def bare_anchors():
    whole = numbered()
    pixels = whole.train.images(torch.arange(SIZE))
    return dataclasses.replace(whole, train=TensorImages(pixels, torch.full((SIZE,), -1)))


@pytest.mark.parametrize("place", ["host=flower", "ray.address=10.0.0.1:6379"])
def test_private_images_at_another_place_are_not_judged_by_the_anchors(place):
    base = [one for one in TINY if not one.startswith(("data.", "steps", "host="))]
    host = [] if place.startswith("host=") else ["host=ray"]
    learns = ["objective@peers.wide.objective=supervised", "peers.wide.ssl_on=private"]
    config = compose_run([*base, *host, place, "steps=4", "peers=pair", *UNLIKE, *learns])
    run = prepare(config, dataset=bare_anchors())
    assert run.here == {"resnet"}
    (note,) = [one for one in notes_of(run) if "no kNN" in one]
    assert note.startswith("no kNN and no linear probe of resnet: "), "wide counts on its own"
    at_home = load_run(config, bare_anchors(), peers=("wide",))
    assert at_home.here == {"resnet", "wide"}
    at_home.build_peer("wide", CPU)
    with pytest.raises(ConfigError, match=f"{SIZE} of the {SIZE} training images"):
        both = dataclasses.replace(config.peers["wide"], data=None, ssl_on=LossOn.BOTH)
        plain = dataclasses.replace(config, peers={**config.peers, "wide": both})
        prepare(plain, dataset=bare_anchors())


def test_a_coordinator_with_a_manifest_judges_no_classes(tmp_path):
    Manifest.of(numbered(), "CC0").write(tmp_path / "anchors.json")
    base = [one for one in TINY if not one.startswith(("data.", "steps", "host="))]
    far = ["host=flower", "peers=pair", "steps=4", f"anchors={tmp_path}/anchors.json"]
    learns = ["objective@peers.wide.objective=supervised", "anchor_share=0.5"]
    run = prepare(compose_run([*base, *far, *learns]))
    assert run.here == frozenset() and not [one for one in notes_of(run) if "no kNN" in one]


def test_a_coordinator_of_sites_judges_no_labels_but_leaves_that_to_them():
    """Its anchors may have none, and the sites' own images may have some."""
    base = [one for one in TINY if not one.startswith(("data.", "steps", "host="))]
    config = compose_run([*base, "steps=4", "host=flower", "peers=pair", "anchor_share=0.5"])
    bare = bare_anchors()
    run = load_run(config, bare, is_to_start=True)
    assert not [one for one in notes_of(run) if "no kNN" in one]
    plain = dataclasses.replace(config, anchor_share=None)
    assert [one for one in notes_of(load_run(plain, bare)) if "no kNN" in one]


def test_an_objective_that_learns_classes_sees_those_of_one_data_set():
    """Class 0 of the one is not class 0 of the other, and nobody would see that they were mixed."""
    learns = "objective@peers.wide.objective=supervised"
    with pytest.raises(ConfigError, match=r"the anchors 0 to 3; type peers\.wide\.ssl_on=private"):
        loaded("peers=pair", *UNLIKE, learns).build_peer("wide", CPU)
    loaded("peers=pair", *UNLIKE, learns, "peers.wide.ssl_on=private").build_peer("wide", CPU)
    cut_run("peers=pair", learns).build_peer("wide", CPU)
    with pytest.raises(ConfigError, match="learns classes, but"):
        cut_run("peers=pair", learns, *OTHERS).build_peer("wide", CPU)
