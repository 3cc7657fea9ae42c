"""What holds for every objective: heads, what is learned with and published, where gradients go."""

from __future__ import annotations

import copy

import pytest
import torch
import yaml
from torch import nn

from dogo_fed import components
from dogo_fed.data.roles import StepImages
from dogo_fed.engine.step import absorb, propose, show
from dogo_fed.objectives.catalog import OBJECTIVES
from tests.support.command_line import REPOSITORY
from tests.support.toy_peers import (
    FEATURES,
    TOY_OBJECTIVES,
    WITH_TARGET,
    ToyBackbone,
    same_bits,
    signal_of,
    state_of,
    toy_images,
    toy_objective,
    toy_peer,
)

WITH_PREDICTOR = ("byol", "moco_v3", "simsiam")
CONFIGS = REPOSITORY / "configs" / "objective"

PUBLISH = [
    (kind, publish)
    for kind in TOY_OBJECTIVES
    for publish in ("projector", "predictor", "target")
    if publish == "projector"
    or (publish == "predictor" and kind in WITH_PREDICTOR)
    or (publish == "target" and kind in WITH_TARGET)
]


def two_views(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    view_a, view_b = torch.randn(
        2, 6, 3, 8, 8, dtype=dtype, generator=torch.Generator().manual_seed(0)
    )
    return view_a, view_b


def statistics(state: dict[str, torch.Tensor]) -> set[str]:
    return {
        key for key in state if key.endswith(("running_mean", "running_var", "batches_tracked"))
    }


def test_every_self_supervised_objective_has_toys_and_both_configurations():
    classes = {kind: components.resolve("objective", kind, OBJECTIVES) for kind in OBJECTIVES}
    kinds = {kind for kind, made in classes.items() if not getattr(made, "uses_labels", False)}
    assert TOY_OBJECTIVES.keys() == kinds
    assert all(TOY_OBJECTIVES[kind][0] is classes[kind] for kind in kinds)
    names = {path.stem for path in CONFIGS.glob("*.yaml")}
    assert names >= kinds
    assert names >= {f"{kind}_small" for kind in kinds - {"simclr"}}, "SimCLR's heads are small"


@pytest.mark.parametrize(
    "stem", [stem for kind in TOY_OBJECTIVES for stem in (kind, f"{kind}_small")]
)
def test_configurations_name_every_option_and_the_plain_ones_have_the_papers_values(stem: str):
    """They are the defaults of the code, spelled out."""
    path = CONFIGS / f"{stem}.yaml"
    if stem == "simclr_small":
        assert not path.exists()
        return
    content = yaml.safe_load(path.read_text())
    name = stem.removesuffix("_small")
    assert content["name"] == name
    made = components.resolve("objective", name, OBJECTIVES)
    components.check_options(
        "objective", name, made, content["options"], ["backbone", "feature_dim"]
    )
    assert content["options"].keys() == made.__init__.__kwdefaults__.keys()
    if stem == name:
        assert content["options"] == made.__init__.__kwdefaults__


@pytest.mark.parametrize(("kind", "publish"), PUBLISH)
def test_learns_with_the_last_head_and_publishes_what_it_was_told(kind, publish):
    objective = toy_objective(kind, publish=publish).double().eval()
    if hasattr(objective, "target"):  # so that it differs from what it follows
        nn.init.normal_(objective.target.projector[-1].weight)
    view_a, view_b = two_views(torch.float64)
    output = objective(view_a, view_b)
    found = {"projector": [objective.projector(objective.backbone(x)) for x in (view_a, view_b)]}
    if kind in WITH_PREDICTOR:
        found["predictor"] = [objective.predictor(z) for z in found["projector"]]
    if kind in WITH_TARGET:
        target = objective.target
        found["target"] = [target.projector(target.backbone(x)) for x in (view_a, view_b)]
    learns_with = "predictor" if kind in WITH_PREDICTOR else "projector"
    for pair, name in ((output.learn_with, learns_with), (output.publish, publish)):
        assert torch.equal(pair.a_ND, found[name][0])
        assert torch.equal(pair.b_ND, found[name][1])
    for pair in (output.learn_with, output.publish):
        assert not torch.equal(pair.a_ND, pair.b_ND)


@pytest.mark.parametrize("kind", TOY_OBJECTIVES)
def test_heads_that_it_does_not_have_are_not_published(kind):
    possible = [publish for one, publish in PUBLISH if one == kind]
    if possible == ["projector"]:
        assert "publish" not in TOY_OBJECTIVES[kind][0].__init__.__kwdefaults__
        return
    with pytest.raises(
        ValueError, match=r'publish must be "projector".* or "\w+", not \'backbone\''
    ):
        toy_objective(kind, publish="backbone")


# ---------------------------------------------------------------------------------------------------
# Gradients


@pytest.mark.parametrize("kind", TOY_OBJECTIVES)
def test_the_own_loss_reaches_every_trainable_parameter_and_no_target(kind):
    objective = toy_objective(kind)
    if hasattr(objective, "target"):
        objective.target.requires_grad_(True)  # even if somebody did
    objective(*two_views()).ssl_loss.backward()
    for name, parameter in objective.named_parameters():
        if name.startswith("target."):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
    assert objective.backbone.conv.weight.grad.abs().max() > 1e-8


@pytest.mark.parametrize("kind", WITH_TARGET)
def test_targets_are_constants_to_the_loss(kind):
    """The gradient is what it would be, had the target's embeddings been numbers from a file."""
    objective = toy_objective(kind).double()
    objective.target.requires_grad_(True)
    expected = copy.deepcopy(objective)
    objective(*two_views(torch.float64)).ssl_loss.backward()
    view_a, view_b = two_views(torch.float64)
    saved = {id(view): expected.target(view) for view in (view_a, view_b)}
    assert not any(one.requires_grad for one in saved.values())

    class FromAFile(nn.Module):
        def forward(self, view):
            return saved[id(view)].clone()

    expected.target = FromAFile()
    expected(view_a, view_b).ssl_loss.backward()
    mine = dict(objective.named_parameters())
    for name, parameter in expected.named_parameters():
        assert torch.equal(parameter.grad, mine[name].grad), name


@pytest.mark.parametrize("kind", ["byol", "moco_v3", "simsiam"])
def test_a_predictor_that_ignores_its_input_leaves_nothing_to_learn_for_the_rest(kind):
    objective = toy_objective(kind).double()
    last = [module for module in objective.predictor if isinstance(module, nn.Linear)][-1]
    nn.init.zeros_(last.weight)
    objective(*two_views(torch.float64)).ssl_loss.backward()
    for module in (objective.projector, objective.backbone):
        assert all(one.grad is None or one.grad.abs().max() == 0 for one in module.parameters())


@pytest.mark.parametrize(("kind", "publish"), PUBLISH)
def test_no_gradient_flows_through_what_is_published(kind, publish):
    """A peer's update is the same whether it shows its distribution or not, and whatever it shows."""
    images = toy_images()
    teacher = toy_peer("simclr", seed=3)
    signal = signal_of(show(teacher, propose(teacher, StepImages(images), 0)))
    shows, silent = toy_peer(kind, publish=publish), toy_peer(kind)
    proposal = propose(shows, StepImages(images), 0)
    shown = show(shows, proposal)
    absorb(shows, proposal, signal)
    absorb(silent, propose(silent, StepImages(images), 0), signal)
    mine, other = state_of(shows), state_of(silent)
    assert mine.keys() == other.keys()
    # MoCo v2 shows its target both views, so the target's statistics have seen more
    own = statistics(mine) if (kind, publish) == ("moco_v2", "target") else set()
    assert all(torch.equal(mine[key], other[key]) for key in mine.keys() - own)
    assert shown.p_NN.sum(axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", TOY_OBJECTIVES)
def test_the_mutual_kl_reaches_the_backbone_by_itself(kind):
    peer = toy_peer(kind, dtype=torch.float64)
    output = propose(peer, StepImages(toy_images()), 0).output
    log_p_NN = peer.log_distribution(output.learn_with)
    log_p_NN[0, 1].backward()
    assert peer.objective.backbone.conv.weight.grad.abs().max() > 1e-8
    frozen = [one for one in peer.objective.parameters() if not one.requires_grad]
    assert bool(frozen) == (kind in WITH_TARGET)
    assert all(one.grad is None for one in frozen)


# ---------------------------------------------------------------------------------------------------
# State


@pytest.mark.parametrize(("kind", "publish"), PUBLISH)
def test_a_proposal_changes_running_statistics_only(kind, publish):
    peer = toy_peer(kind, publish=publish)
    before = state_of(peer)
    show(peer, propose(peer, StepImages(toy_images()), 0))
    after = state_of(peer)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == statistics(before)


@pytest.mark.parametrize("kind", TOY_OBJECTIVES)
def test_weight_decay_does_not_touch_what_is_not_trained(kind):
    def decaying(objective):
        trained = [one for one in objective.parameters() if one.requires_grad]
        return torch.optim.SGD(trained, lr=0.1, weight_decay=0.5)

    peer = toy_peer(kind, optimizer=decaying)
    frozen = {
        name: one.clone()
        for name, one in peer.objective.named_parameters()
        if not one.requires_grad
    }
    assert bool(frozen) == (kind in WITH_TARGET)
    peer.objective.after_update = lambda: None
    absorb(peer, propose(peer, StepImages(toy_images()), 0), None)
    for name, parameter in peer.objective.named_parameters():
        if name in frozen:
            assert torch.equal(parameter, frozen[name]), name


@pytest.mark.parametrize("kind", TOY_OBJECTIVES)
def test_a_copy_in_the_middle_of_a_run_goes_on_alike(kind):
    peer = toy_peer(kind, dropout=0.2)
    for step in range(2):
        absorb(peer, propose(peer, StepImages(toy_images(seed=step)), step), None)
    twin = copy.deepcopy(peer)
    for one in (peer, twin):
        absorb(one, propose(one, StepImages(toy_images(seed=2)), 2), None)
    assert same_bits(state_of(peer), state_of(twin))


# ---------------------------------------------------------------------------------------------------
# The sizes of the papers


def linears(head: nn.Module) -> list[tuple[int, int]]:
    return [(one.in_features, one.out_features) for one in head if isinstance(one, nn.Linear)]


def kinds_of(head: nn.Module) -> str:
    letters = {nn.Linear: "L", nn.BatchNorm1d: "B", nn.ReLU: "R"}
    return "".join(letters[type(one)] for one in head)


HEADS = {
    "barlow_twins": {"projector": ("LBRLBRL", [(FEATURES, 8192), (8192, 8192), (8192, 8192)])},
    "byol": {
        "projector": ("LBRL", [(FEATURES, 4096), (4096, 256)]),
        "predictor": ("LBRL", [(256, 4096), (4096, 256)]),
    },
    "moco_v2": {"projector": ("LRL", [(FEATURES, 2048), (2048, 128)])},
    "moco_v3": {
        "projector": ("LBRLBRLB", [(FEATURES, 4096), (4096, 4096), (4096, 256)]),
        "predictor": ("LBRLB", [(256, 4096), (4096, 256)]),
    },
    "simclr": {"projector": ("LBRL", [(FEATURES, 512), (512, 128)])},
    "simsiam": {
        "projector": ("LBRLBRLB", [(FEATURES, 2048), (2048, 2048), (2048, 2048)]),
        "predictor": ("LBRL", [(2048, 512), (512, 2048)]),
    },
    "vicreg": {"projector": ("LBRLBRL", [(FEATURES, 8192), (8192, 8192), (8192, 8192)])},
}


@pytest.mark.parametrize("kind", HEADS)
def test_the_heads_are_the_papers(kind):
    with torch.device("meta"):  # shapes without the 600 MB
        objective = TOY_OBJECTIVES[kind][0](ToyBackbone(), FEATURES)
    for name, (layers, sizes) in HEADS[kind].items():
        head = getattr(objective, name)
        assert (kinds_of(head), linears(head)) == (layers, sizes), name
    if kind in WITH_TARGET:
        assert linears(objective.target.projector) == HEADS[kind]["projector"][1]
        assert not hasattr(objective.target, "predictor")
    if kind == "moco_v2":
        assert objective.queue_KD.shape == (65536, 128)


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        ("barlow_twins", "off_diagonal_weight", -1.0),
        ("barlow_twins", "output_dim", 0),
        ("byol", "momentum", 1.5),
        ("byol", "momentum", float("nan")),
        ("byol", "momentum_steps", 0),
        ("byol", "hidden_dim", 0),
        ("moco_v2", "queue_size", 0),
        ("moco_v2", "temperature", 0.0),
        ("moco_v2", "momentum", -0.1),
        ("moco_v3", "output_dim", 0),
        ("moco_v3", "temperature", -1.0),
        ("moco_v3", "momentum_steps", -3),
        ("vicreg", "invariance_weight", -1.0),
        ("vicreg", "variance_weight", float("nan")),
        ("vicreg", "covariance_weight", float("inf")),
        ("vicreg", "hidden_dim", -2),
    ],
)
def test_impossible_options_are_refused_by_name(kind, option, value):
    made, options = TOY_OBJECTIVES[kind]
    with pytest.raises(ValueError, match=rf"^{option} must be .*, not {value}$"):
        made(ToyBackbone(), FEATURES, **{**options, option: value})
