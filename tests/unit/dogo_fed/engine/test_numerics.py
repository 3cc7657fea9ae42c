"""How a process computes, and how tensors come to where it does."""

from __future__ import annotations

import pytest
import torch

from configs.compose import compose_run
from dogo_fed.data.to_device import to_device
from dogo_fed.engine import drive
from dogo_fed.engine.numerics import check_compiler, failed_compiling_told, fix_numerics
from dogo_fed.errors import ConfigError
from dogo_fed.run import prepare as prepare_module
from dogo_fed.run.prepare import prepare
from tests.support.run_watch import digests
from tests.support.tiny_run import TINY, run_here


@pytest.fixture
def as_before():
    """Puts back what a test sets for the whole process."""
    is_deterministic = torch.are_deterministic_algorithms_enabled()
    precision, tf32 = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    fills = torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(is_deterministic)
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = tf32
    torch.utils.deterministic.fill_uninitialized_memory = fills


def test_float32_is_float32_on_a_gpu_too(as_before):
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("high")
    fix_numerics(torch.get_num_threads())
    assert torch.backends.cudnn.allow_tf32 is False
    assert torch.get_float32_matmul_precision() == "highest"


def test_new_tensors_are_not_filled_with_what_nobody_reads(as_before):
    torch.utils.deterministic.fill_uninitialized_memory = True
    fix_numerics(torch.get_num_threads())
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory is False


class Noted:
    """In place of a tensor: notes how it is moved, for machines without a GPU."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.told: list[object] = []

    def pin_memory(self) -> Noted:
        self.told.append("pinned")
        return self

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Noted:
        self.told.append((device.type, non_blocking))
        return self


@pytest.mark.parametrize(
    ("start", "end", "told"),
    [
        ("cpu", "cuda", ["pinned", ("cuda", True)]),
        ("cuda", "cuda", [("cuda", False)]),
        ("cuda", "cpu", [("cpu", False)]),
        ("cpu", "cpu", [("cpu", False)]),
    ],
)
def test_nobody_waits_for_what_goes_to_a_gpu(start, end, told):
    """A number that comes from one is waited for: it would be read before it is there."""
    tensor = Noted(start)
    to_device(tensor, torch.device(end))
    assert tensor.told == told


# ---- compile=true where nothing can be compiled ----


@pytest.fixture
def without_compiler(monkeypatch):
    """Lets torch find no compiler, as in a slim container."""

    def fail(graph, inputs):
        raise OSError("No working C++ compiler found")

    def compile_with_nothing(module, **given):
        module._compiled_call_impl = torch.compile(module._call_impl, backend=fail)

    monkeypatch.setattr(torch.nn.Module, "compile", compile_with_nothing)


NEEDS = r"compile=true can't be done .* No working C\+\+ compiler found\. On a CPU it needs"


def test_a_machine_without_a_compiler_is_told_before_anything_starts(without_compiler):
    with pytest.raises(ConfigError, match=NEEDS):
        check_compiler(torch.device("cpu"))
    with pytest.raises(ConfigError, match=NEEDS):
        prepare(compose_run([*TINY, "compile=true"]))
    assert prepare(compose_run([*TINY])).config.compile is False


def test_a_network_that_cannot_be_compiled_is_a_wrong_setting(without_compiler, monkeypatch):
    monkeypatch.setattr(prepare_module, "check_compiler", lambda device: None)
    with pytest.raises(ConfigError, match=NEEDS):
        run_here(compose_run([*TINY, "compile=true"]))

    with pytest.raises(ConfigError, match=NEEDS):  # found while it is tried how fast it is
        prepare(compose_run([*TINY, "compile=true", "precision=auto"]))

    class Session:
        def start(self):
            torch.compile(torch.nn.ReLU(), backend=lambda graph, inputs: 1 / 0)(torch.zeros(2))

    with pytest.raises(ConfigError, match="compile=true can't be done"):
        drive.run_peer(Session(), lambda: False)


@pytest.mark.parametrize(
    "setting", ["exchange.lookahead=1", "peers.wide.chunk_size=6", "peers.wide.teacher=ema"]
)
def test_what_is_compiled_trains_as_it_is_written(setting, tmp_path, monkeypatch):
    """With copies of the weights, with passes that are done again, and beside a copy of its own.

    The graphs are found as ever, and then run as they are, so that no bit may change.
    """
    found = []

    def as_it_is(graph, inputs):
        found.append(graph)
        return graph.forward

    def compile_with_that(module, **given):
        module._compiled_call_impl = torch.compile(module._call_impl, backend=as_it_is)

    monkeypatch.setattr(torch.nn.Module, "compile", compile_with_that)
    monkeypatch.setattr(prepare_module, "check_compiler", lambda device: None)
    for name, more in (("plain", []), ("compiled", ["compile=true"])):
        run_here(compose_run([*TINY, setting, *more, f"run_dir={tmp_path}/{name}"]))
        assert bool(found) == (name == "compiled")
    assert digests(tmp_path / "plain") == digests(tmp_path / "compiled")


def test_other_errors_of_a_pass_stay_as_they_are():
    torch._dynamo  # noqa: B018  # what compiles is there
    with pytest.raises(RuntimeError, match="shapes"), failed_compiling_told():
        raise RuntimeError("shapes")
