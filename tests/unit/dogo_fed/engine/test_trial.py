"""A network of the user's own that can't be trained fails before the run, with its own traceback."""

from __future__ import annotations

import pytest
import torch

from configs.compose import compose_run
from dogo_fed.config import ComponentConfig
from dogo_fed.data.datasets import build_dataset
from dogo_fed.data.synthetic import synthetic
from dogo_fed.engine.build import build_backbone
from dogo_fed.engine.loaded_run import load_run
from dogo_fed.engine.trial import try_own_code
from dogo_fed.errors import ConfigError, OwnCodeError, own_failure
from dogo_fed.exit_status import tell
from dogo_fed.run.prepare import prepare
from tests.support.tiny_run import TINY
from tests.support.toy_peers import ToyBackbone, same_bits, state_of


class FailsInTraining(ToyBackbone):
    """Can be evaluated, so a look at its features finds nothing."""

    def forward(self, images_NCHW):
        if self.training:
            self.refuse()
        return super().forward(images_NCHW)

    def refuse(self):
        raise KeyError("the key of mine")


class FailsBackwards(ToyBackbone):
    """Its forward pass works; its gradient does not."""

    def forward(self, images_NCHW):
        features = super().forward(images_NCHW)
        squares = features.square()
        features += 1.0  # what the square's gradient needs is gone
        return squares


class HasNoGradient(ToyBackbone):
    def forward(self, images_NCHW):
        return super().forward(images_NCHW).detach().requires_grad_()


def prepared(backbone):
    config = compose_run([*TINY])
    name = min(config.peers)
    data = synthetic(size=64, test_size=8, image_size=16)
    return prepare(config, dataset=data, backbones={name: backbone}), name


@pytest.mark.parametrize(
    ("backbone", "cause"), [(FailsInTraining, KeyError), (FailsBackwards, RuntimeError)]
)
def test_a_network_that_can_not_be_trained_is_refused_before_the_run(backbone, cause):
    with pytest.raises(OwnCodeError, match="can't do a step of training") as caught:
        prepared(backbone())
    assert isinstance(own_failure(caught.value), cause)


def test_the_traceback_is_that_of_the_users_code_and_not_of_ours(capsys):
    with pytest.raises(OwnCodeError) as caught:
        prepared(FailsInTraining())
    assert tell(caught.value) == 2
    said = capsys.readouterr().err
    assert "in refuse" in said and "KeyError: 'the key of mine'" in said
    assert "passes.py" not in said and "/dogo_fed/engine/peer.py" not in said
    assert said.splitlines()[-1].startswith("dogo-fed: peer ")


def test_a_peer_on_trial_stays_as_it_is():
    run, name = prepared(ToyBackbone(dropout=0.3))
    peer = run.build_peer(name, torch.device("cpu"))
    before, drawn = state_of(peer), torch.get_rng_state()
    try_own_code(run, peer)
    assert same_bits(before, state_of(peer))
    assert torch.equal(drawn, torch.get_rng_state())


def test_a_module_that_can_not_be_copied_is_not_tried():
    class Uncopied(ToyBackbone):
        def __deepcopy__(self, memo):
            raise RuntimeError("one of me is enough")

    prepared(Uncopied())


def test_peers_of_our_own_parts_are_not_tried(monkeypatch):
    config = compose_run([*TINY])
    monkeypatch.setattr(
        "dogo_fed.engine.trial.do_with_itself", lambda *one: pytest.fail("was tried")
    )
    run = load_run(config, synthetic(size=64, test_size=8, image_size=16))
    for name in run.peer_ids:
        try_own_code(run, run.build_peer(name, torch.device("cpu")))


def test_a_constructor_and_an_item_that_fail_keep_their_cause(tmp_path, monkeypatch):
    (tmp_path / "my_things.py").write_text(
        "class Net:\n"
        "    def __init__(self, **sizes):\n"
        "        self.layers = sizes['depth']\n"
        "class Images:\n"
        "    def __len__(self): return 4\n"
        "    def __getitem__(self, index): return [][index]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(OwnCodeError, match="backbone 'my_things:Net' failed: KeyError") as caught:
        build_backbone(ComponentConfig(name="my_things:Net"), 16, 3)
    assert isinstance(own_failure(caught.value), KeyError)
    with pytest.raises(OwnCodeError, match="failed while it was read: IndexError") as caught:
        build_dataset("my_things:Images", {})
    assert "item 0 of my_things:Images: train" in own_failure(caught.value).__notes__[0]


def test_a_module_that_fails_when_it_is_imported_is_told_from_one_that_is_missing(
    tmp_path, monkeypatch
):
    (tmp_path / "my_broken.py").write_text("import no_such_library_here\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(OwnCodeError, match="no_such_library_here"):
        build_dataset("my_broken:images", {})
    with pytest.raises(ConfigError) as caught:
        build_dataset("no_such_module_here:images", {})
    assert own_failure(caught.value) is None


def test_features_without_a_gradient_are_refused():
    with pytest.raises(ConfigError, match="no gradient"):
        prepared(HasNoGradient())
