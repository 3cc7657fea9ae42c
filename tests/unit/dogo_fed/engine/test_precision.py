"""Half precision in the networks, float32 in what is learned by and shown; repeatable bit for bit."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import dogo_fed
from configs.compose import compose_run
from dogo_fed.config import MemoryFormat, Precision
from dogo_fed.config_text import load_run_config
from dogo_fed.data.synthetic import synthetic
from dogo_fed.engine import fastest, loaded_run
from dogo_fed.engine.build import build_peer
from dogo_fed.engine.loaded_run import load_run
from dogo_fed.engine.step import absorb, propose, show
from dogo_fed.errors import ConfigError, TrainingError
from dogo_fed.evaluation import state_digest
from dogo_fed.run import prepare as prepare_module
from dogo_fed.run.prepare import notes_of, prepare
from tests.support.run_watch import digests
from tests.support.tiny_run import TINY, run_here
from tests.support.toy_peers import signal_of

CPU = torch.device("cpu")
FAST = ("precision=bf16", "memory_format=channels_last")


def peer_of(*settings):
    run = load_run(compose_run([*TINY, *settings]), synthetic(size=96, test_size=16))
    return run, run.build_peer("wide", CPU)


def steps(number, *settings):
    """Returns the own losses, the KLs and the last distribution of a peer that teaches itself."""
    run, peer = peer_of(*settings)
    losses = []
    for step in range(number):
        proposal = propose(peer, run.images_of("wide", step, with_labels=False), step)
        shown = show(peer, proposal)
        done = absorb(peer, proposal, signal_of(shown))
        losses.append((done.ssl_loss, done.mutual_kl))
    return peer, losses, shown


@pytest.mark.parametrize(("half", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_half_precision_is_used_in_the_networks_and_nowhere_else(half, dtype):
    run, peer = peer_of(f"precision={half}")
    proposal = propose(peer, run.images_of("wide", 0, with_labels=False), 0)
    assert proposal.output.learn_with.a_ND.dtype == dtype, "a pass in half precision"
    assert proposal.output.ssl_loss.dtype == torch.float32
    shown = show(peer, proposal)
    assert shown.p_NN.dtype.name == "float32"
    assert abs(shown.p_NN.sum(axis=1) - 1).max() < 1e-5
    absorb(peer, proposal, signal_of(shown))
    assert {one.dtype for one in peer.objective.parameters()} == {torch.float32}
    assert {one.grad.dtype for one in peer.objective.parameters()} == {torch.float32}


def test_a_run_is_as_it_would_be_but_for_rounding():
    _, plain, shown = steps(4)
    tried = ((("memory_format=channels_last",), 1e-3), (("precision=fp16",), 0.02), (FAST, 0.05))
    for settings, near in tried:
        _, losses, other = steps(4, *settings)
        for one, two in zip(plain, losses, strict=True):
            assert one == pytest.approx(two, rel=near, abs=near), settings
        assert abs(shown.p_NN - other.p_NN).max() < 10 * near


@pytest.mark.slow
def test_a_compiled_run_is_as_it_would_be_but_for_rounding():
    _, plain, shown = steps(2)
    peer, losses, other = steps(2, "compile=true")
    assert peer.objective.backbone._compiled_call_impl is not None
    for one, two in zip(plain, losses, strict=True):
        assert one == pytest.approx(two, rel=1e-3, abs=1e-3)
    assert abs(shown.p_NN - other.p_NN).max() < 1e-2


def test_the_memory_format_reaches_weights_and_views():
    run, peer = peer_of("memory_format=channels_last")
    views = peer.views(run.images_of("wide", 0, with_labels=False).images_NCHW, 0)
    weights = [one for one in peer.objective.parameters() if one.ndim == 4]
    for one in (*views, *weights):
        assert one.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("settings", [FAST, ("precision=fp16",)], ids=["bf16", "fp16"])
def test_a_run_in_half_precision_repeats_and_goes_on_bit_for_bit(settings, tmp_path):
    from configs.resume import resumed

    short = [one for one in TINY if one != "steps=3"]
    run_here(compose_run([*short, *settings, "steps=4", f"run_dir={tmp_path}/one"]))
    run_here(compose_run([*short, *settings, "steps=2", f"run_dir={tmp_path}/two"]))
    again = [f"resume={tmp_path}/two", "steps=4"]
    run_here(resumed(compose_run(again), again))
    run_here(compose_run([*short, "steps=4", f"run_dir={tmp_path}/fp32"]))
    assert digests(tmp_path / "one") == digests(tmp_path / "two") != digests(tmp_path / "fp32")


# ---- cuda_graphs ----


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["cuda_graphs=true"], "add compile=true"),
        (["compile=true", "cuda_graphs=true", "exchange.lookahead=1"], "leave one of them out"),
        (["compile=true", "cuda_graphs=true", "peers.wide.chunk_size=4"], "peers.wide.chunk_size"),
    ],
)
def test_recordings_that_would_be_wrong_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        compose_run([*TINY, *settings])


RECORDED = ("compile=true", "cuda_graphs=true")


def test_recordings_of_several_peers_in_one_process_are_refused():
    """The pass of the second begins before the first has gone back through its own."""
    with pytest.raises(ConfigError, match="host=processes or host=ray"):
        compose_run([*TINY, *RECORDED])
    compose_run([*TINY, *RECORDED, "host=processes"])
    compose_run([*TINY, *RECORDED, "peers=solo"])


def test_from_python_all_peers_are_in_one_process_whatever_the_host_is():
    config = compose_run([*TINY, *RECORDED, "host=processes"])
    with pytest.raises(ConfigError, match=r"peers that share a process \(resnet, wide\)"):
        dogo_fed.train(config)


@pytest.mark.parametrize("host", ["processes", "ray"])
def test_recordings_are_for_a_gpu(host):
    words = "cuda_graphs=true is for a GPU, and the peers here compute on cpu"
    config = compose_run([*TINY, *RECORDED, "device=cpu", f"host={host}"])
    with pytest.raises(ConfigError, match=words):
        prepare(config)
    with pytest.raises(ConfigError, match=words):
        load_run(config).build_peer("wide")


def test_a_run_with_recordings_can_be_prepared_where_there_is_a_gpu(monkeypatch):
    """The peers that are built before it begins are on a CPU, and of no use but to be tried."""
    told = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **given: told.append(given))
    monkeypatch.setattr(prepare_module, "resolve_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(prepare_module, "check_compiler", lambda device: None)
    run = prepare(compose_run([*TINY, *RECORDED, "host=processes"]))
    assert run.config.cuda_graphs
    assert told == [{"mode": None}] * len(run.peer_ids), "there, nothing is recorded"
    assert not run.build_peer("wide", CPU).uses_cuda_graphs


def test_a_gpu_gets_recordings_that_know_where_a_step_begins(monkeypatch):
    told = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **given: told.append(given))
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: told.append("step"))
    peer_of("compile=true")
    assert told == [{"mode": None}]

    def on_a_gpu(*arguments, **given):  # which is only told so: there may be none
        return dataclasses.replace(build_peer(*arguments, **given), device=torch.device("cuda"))

    monkeypatch.setattr(loaded_run, "build_peer", on_a_gpu)
    run, peer = peer_of("compile=true", "cuda_graphs=true", "host=processes")
    assert told[1:] == [{"mode": "reduce-overhead"}]
    here = dataclasses.replace(peer, device=CPU)
    propose(here, run.images_of("wide", 0, with_labels=False), 0)
    assert told[2:] == ["step"]


# ---- precision=fp16: the scale of the loss ----


def one_step(run, peer, step=0):
    proposal = propose(peer, run.images_of("wide", step, with_labels=False), step)
    absorb(peer, proposal, signal_of(show(peer, proposal)))


def test_a_step_whose_gradient_overflows_is_left_out_and_the_scale_halved(caplog):
    run, peer = peer_of("precision=fp16")
    one_step(run, peer)
    peer.scaler.load_state_dict({**peer.scaler.state_dict(), "scale": 2.0**40})
    before = state_digest(peer.objective)
    weights = [one.detach().clone() for one in peer.objective.parameters()]
    with caplog.at_level("INFO"):
        one_step(run, peer, step=1)
    assert all(map(torch.equal, weights, peer.objective.parameters()))
    assert peer.scaler.get_scale() == 2.0**39
    assert "step=1 is left out: its gradient overflows in fp16" in caplog.text
    peer.scaler.load_state_dict({**peer.scaler.state_dict(), "scale": 2.0**10})
    one_step(run, peer, step=2)
    assert state_digest(peer.objective) != before


def test_a_gradient_that_overflows_at_any_scale_ends_the_training():
    run, peer = peer_of("precision=fp16")
    one_step(run, peer)
    peer.scaler.load_state_dict({**peer.scaler.state_dict(), "scale": 1.5})
    weight = next(peer.objective.backbone.parameters())
    weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(TrainingError, match="the length of the gradient"):
        one_step(run, peer, step=1)


def test_a_small_gradient_is_lost_without_the_scale_and_kept_with_it():
    run, peer = peer_of("precision=fp16")
    proposal = propose(peer, run.images_of("wide", 0, with_labels=False), 0)
    peer.update(proposal.output.ssl_loss * 1e-7, 0)
    kept = [one.grad.abs().max() for one in peer.objective.backbone.parameters()]
    run, peer = peer_of("precision=fp16")
    peer = dataclasses.replace(peer, scaler=None)
    proposal = propose(peer, run.images_of("wide", 0, with_labels=False), 0)
    peer.update(proposal.output.ssl_loss * 1e-7, 0)
    lost = [one.grad.abs().max() for one in peer.objective.backbone.parameters()]
    assert sum(one > 0 for one in kept) > sum(one > 0 for one in lost)


# ---- precision=auto ----


@pytest.fixture(autouse=True)
def nothing_is_known(monkeypatch):
    """Lets every test measure anew."""
    monkeypatch.setattr(fastest, "_chosen", {})


@pytest.fixture
def clock(monkeypatch):
    """Makes a step take as long as a function of (precision, step of this candidate) says."""
    here = {"now": 0.0, "steps": [], "takes": lambda half, number: 1.0}

    def step(peer, images, number):
        half = {torch.bfloat16: "bf16"}.get(peer.half, "fp32")
        name = f"{half}, {'last' if peer.memory_format is torch.channels_last else 'first'}"
        here["steps"].append(name)
        here["now"] += here["takes"](name, number)

    monkeypatch.setattr(fastest, "do_with_itself", step)
    monkeypatch.setattr(fastest, "_now_s", lambda device: here["now"])
    return here


def chosen(monkeypatch, *seconds):
    """Returns the run for which the candidates took so many seconds a step."""
    taken = dict(zip(fastest.CANDIDATES, seconds, strict=True))
    share = {one: each / 2 for one, each in taken.items()}  # there are two peers
    monkeypatch.setattr(fastest, "_seconds_of", lambda run, peer, device: share)
    return prepare(compose_run([*TINY, "precision=auto"]))


def test_a_slow_candidate_is_given_up_and_slow_steps_are_timed_once(clock):
    """bf16 on a processor without instructions for it, and networks that are large."""
    clock["takes"] = lambda name, number: 70.0 if name.startswith("bf16") else 10.0
    run = prepare(compose_run([*TINY, "precision=auto"]))
    assert run.config.precision is Precision.FP32
    for name, steps in (("fp32, first", 2), ("fp32, last", 2), ("bf16, last", 1)):
        assert clock["steps"].count(name) == steps * len(run.peer_ids), name


def test_a_candidate_that_is_slow_for_a_moment_loses_nothing_by_it(clock):
    """The machine is three times slower in the second round, for all that take a turn then."""
    clock["takes"] = lambda name, number: (
        (0.8 if name.startswith("bf16") else 1.0) * (3.0 if number == 2 else 1.0)
    )
    run = prepare(compose_run([*TINY, "precision=auto"]))
    assert run.config.precision is Precision.BF16
    turns = clock["steps"][: len(clock["steps"]) // 2]
    assert turns[-3:] == ["fp32, first", "fp32, last", "bf16, last"], "they take turns"


def test_a_sweep_measures_once(clock):
    first = prepare(compose_run([*TINY, "precision=auto", "seed=0"]))
    clock["takes"] = lambda name, number: 0.1 if name.startswith("bf16") else 1.0
    steps = len(clock["steps"])
    second = prepare(compose_run([*TINY, "precision=auto", "seed=1"]))
    assert second.config.precision is first.config.precision and len(clock["steps"]) == steps
    assert second.notes[-1] == first.notes[-1]
    other = prepare(compose_run([*TINY, "precision=auto", "batch_size=8"]))
    assert other.config.precision is Precision.BF16


def test_images_of_another_shape_are_measured_anew(clock):
    """A notebook gives images in place of those that the settings name."""
    config = compose_run([*TINY, "precision=auto"])
    prepare(config, dataset=synthetic(size=96, test_size=32))
    clock["takes"] = lambda name, number: 0.1 if name.startswith("bf16") else 1.0
    steps = len(clock["steps"])
    again = prepare(config, dataset=synthetic(size=80, test_size=32))
    assert again.config.precision is Precision.FP32 and len(clock["steps"]) == steps
    larger = synthetic(size=96, test_size=32, image_size=24)
    assert prepare(config, dataset=larger).config.precision is Precision.BF16
    others = dataclasses.replace(synthetic(size=96, test_size=32), image_size=12)
    steps = len(clock["steps"])
    prepare(config, dataset=others)
    assert len(clock["steps"]) > steps, "the views are smaller, though the images are not"


def test_a_memory_format_that_was_given_is_said_to_be_chosen_anew(clock):
    run = prepare(compose_run([*TINY, "precision=auto", "memory_format=channels_last"]))
    assert "memory_format is chosen with it" in run.notes[-1]


def test_what_it_does_is_said_before_it_takes_its_time(clock, caplog):
    def first(name, number):
        if not clock["steps"][1:]:
            told.extend(caplog.messages)
        return 3.0

    told, clock["takes"] = [], first
    with caplog.at_level("INFO", "dogo_fed.engine.fastest"):
        run = prepare(compose_run([*TINY, "precision=auto"]))
    assert any("precision=auto tries a few steps" in one for one in told)
    assert any("takes 3 s here" in one for one in caplog.messages)
    assert "processor time, all threads together" in run.notes[-1]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ((1.0, 0.7, 0.4), (Precision.BF16, MemoryFormat.CHANNELS_LAST)),
        ((1.0, 0.7, 1.4), (Precision.FP32, MemoryFormat.CHANNELS_LAST)),
        ((1.0, 0.98, 1.4), (Precision.FP32, MemoryFormat.CONTIGUOUS)),
    ],
)
def test_the_clearly_fastest_is_taken_and_the_reason_is_told(monkeypatch, seconds, expected):
    run = chosen(monkeypatch, *seconds)
    assert (run.config.precision, run.config.memory_format) == expected
    (note,) = [one for one in notes_of(run) if one.startswith("precision=auto takes")]
    assert f"takes {expected[0].value}, {expected[1].value}" in note
    assert all(f"{1000 * one:.0f} ms" in note for one in seconds)


def test_arithmetic_that_runs_out_of_memory_is_not_taken(monkeypatch):
    """In fp32 a step may need twice the memory of one in bf16."""
    plain = fastest.do_with_itself

    def too_large_in_fp32(peer, images, step):
        if peer.half is None:
            raise torch.OutOfMemoryError("CUDA out of memory")
        plain(peer, images, step)

    monkeypatch.setattr(fastest, "do_with_itself", too_large_in_fp32)
    run = prepare(compose_run([*TINY, "precision=auto"]))
    assert run.config.precision is Precision.BF16
    (note,) = [one for one in run.notes if one.startswith("precision=auto takes bf16")]
    assert note.count("runs out of memory") == 2 and "fp32, contiguous runs out" in note


def test_it_is_measured_with_the_kernels_and_threads_of_a_run(monkeypatch):
    told = []
    monkeypatch.setattr(fastest, "fix_numerics", lambda threads: told.append(threads))

    def noting(run, peer, device):
        told.append(peer)
        return dict.fromkeys(fastest.CANDIDATES, 1.0)

    monkeypatch.setattr(fastest, "_seconds_of", noting)
    run = prepare(compose_run([*TINY, "precision=auto", "threads_per_peer=3"]))
    assert told == [3, *run.peer_ids]


@pytest.mark.parametrize(
    "settings",
    [
        ["anchors_at=exchanges", "exchange.every_steps=4"],
        ["anchor_share=0", "exchange.enabled=false"],
    ],
)
def test_passes_without_an_anchor_are_tried_too(settings):
    run = prepare(compose_run([*TINY, "precision=auto", "peers=pair", "partition=iid", *settings]))
    assert run.config.precision in (Precision.FP32, Precision.BF16)


def test_what_is_tried_leaves_nothing():
    mine = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 8))
    threads, random_before = torch.get_num_threads(), torch.get_rng_state()
    before = [one.detach().clone() for one in mine.parameters()]
    run = prepare(compose_run([*TINY, "precision=auto"]), backbones={"wide": mine})
    assert run.config.precision in (Precision.FP32, Precision.BF16)
    assert all(map(torch.equal, before, mine.parameters()))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), random_before)


def test_the_choice_is_kept_with_the_run(tmp_path):
    summary = run_here(compose_run([*TINY, "precision=auto", f"run_dir={tmp_path}/run"]))
    kept = load_run_config(tmp_path / "run").precision
    assert kept in (Precision.FP32, Precision.BF16)
    assert any("precision=auto takes" in event["message"] for event in summary["events"])


def test_it_is_not_measured_for_peers_that_live_elsewhere():
    for settings in (["host=flower"], ["host=ray", "ray.address=auto"]):
        with pytest.raises(ConfigError, match="live elsewhere; name fp32, bf16 or fp16"):
            compose_run([*TINY, "precision=auto", *settings])
