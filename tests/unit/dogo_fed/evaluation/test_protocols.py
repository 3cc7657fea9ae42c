"""Protocols on feature sets whose answer is known, and the parts they are made of."""

# N = images, F = features, C = classes

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from dogo_fed.config import DataConfig, EvalConfig
from dogo_fed.contracts import Score
from dogo_fed.data.imbalanced import class_counts
from dogo_fed.data.source import DataSet, Subset, TensorImages
from dogo_fed.data.synthetic import synthetic
from dogo_fed.errors import ConfigError, DataError, EvaluationError
from dogo_fed.evaluation import FrozenFeatures, state_digest
from dogo_fed.evaluation.intervals import wilson
from dogo_fed.evaluation.label_noise import (
    CIFAR10_CLASSES,
    CIFAR10_CONFUSIONS,
    asymmetric,
    next_class,
    symmetric,
)
from dogo_fed.evaluation.protocols import PROTOCOLS, check_labels, complete_options, evaluate
from dogo_fed.evaluation.protocols.ood import with_targets
from dogo_fed.evaluation.softmax_probe import ProbeRecipe, fit, fit_probe
from dogo_fed.evaluation.subject import Encoder, Inputs, Subject
from dogo_fed.evaluation.subsets import (
    choose,
    class_sizes,
    fraction_sizes,
    hold_out,
)
from tests.support.image_folders import draw

QUICK = ProbeRecipe(num_updates=100)
SMALL = {
    "knn": {"k": 20},
    "linear": {"epochs": 2},
    "limited_labels": {"fractions": [0.1], "per_class": [2], "draws": 2},
    "noisy_labels": {"symmetric_rates": [0.4], "asymmetric_rates": [0.4], "draws": 1},
    "imbalance": {"gammas": [0.2], "draws": 1},
    "ood": {
        "targets": [{"name": "synthetic", "options": {"size": 60, "test_size": 40, "seed": 9}}]
    },
    "corruptions": {"names": ["fog", "contrast"], "severities": [1, 5]},
    "health": {},
}
LEVELS = {
    "limited_labels": {("labelled images", False)},
    "noisy_labels": {("share of wrong labels", True)},
    "imbalance": {("gamma", False)},
    "corruptions": {("severity", False)},
}
"""What orders the conditions of a protocol, and whether that is a share."""


@pytest.fixture(autouse=True)
def _quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer updates in the protocols' probes."""
    for module in ("probing", "corruptions"):
        monkeypatch.setattr(
            f"dogo_fed.evaluation.protocols.{module}.fit_probe", partial(fit_probe, recipe=QUICK)
        )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def marked_images(number: int, num_classes: int, noise: int, seed: int) -> TensorImages:
    """Images whose pixel c says "class c", under noise of this size."""
    labels_N = torch.arange(number) % num_classes
    draw = generator(seed)
    pixels_NCHW = torch.randint(0, noise + 1, (number, 1, 8, 8), generator=draw, dtype=torch.uint8)
    flat = pixels_NCHW.view(number, -1)
    flat[torch.arange(number), labels_N] = 200
    return TensorImages(pixels_NCHW, labels_N)


def marked(noise: int = 20, num_classes: int = 5, name: str = "marked") -> DataSet:
    return DataSet(
        name=name,
        train=marked_images(400, num_classes, noise, seed=1),
        test=marked_images(150, num_classes, noise, seed=2),
        num_classes=num_classes,
        image_size=8,
        mean=(0.1,),
        std=(0.2,),
        fingerprint=f"{name} {noise}",
    )


class Pixels(nn.Module):
    """Features are the pixels; a parameter and a buffer to watch over."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.norm = nn.BatchNorm1d(64, affine=False)

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        return self.norm(images_NCHW.flatten(1)) * self.scale


class Shuffled(nn.Module):
    """Features that say nothing: a hash of the pixels."""

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        seeds = (images_NCHW.double().flatten(1) * torch.arange(1, 65)).sum(1)
        return torch.sin(seeds[:, None] * torch.arange(1000, 1016) * 7.13).float()


def subject(backbone: nn.Module, dataset: DataSet, seed: int = 0, name: str = "one") -> Subject:
    encoder = Encoder(
        name=name, backbone=backbone, inputs=Inputs.of(dataset), trained_on="elsewhere"
    )
    return Subject(encoder, dataset, seed)


def synthetic_subject() -> Subject:
    from tests.support.toy_peers import ToyBackbone

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return subject(ToyBackbone(8), synthetic(size=120, test_size=60))


# ---- intervals ----


def test_wilson_equals_the_roots_of_its_equation() -> None:
    """The ends are the proportions p with |share - p| = z sqrt(p (1 - p) / n)."""
    for correct, number in [(0, 10), (1, 10), (5, 10), (70, 100), (1999, 2000), (10, 10)]:
        for end in wilson(correct, number):
            gap = abs(correct / number - end)
            radius = 1.959963984540054 * math.sqrt(end * (1 - end) / number)
            assert gap == pytest.approx(radius, abs=1e-12)


def test_wilson_is_that_of_scipy() -> None:
    for correct, number in ((0, 7), (7, 7), (3, 10), (871, 1000)):
        theirs = binomtest(correct, number).proportion_ci(0.95, method="wilson")
        assert wilson(correct, number) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_wilson_covers_at_about_the_promised_rate() -> None:
    share, number = 0.9, 60
    hits = torch.distributions.Binomial(number, share)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        counts = hits.sample((2000,)).int().tolist()
    inside = [low <= share <= high for low, high in (wilson(count, number) for count in counts)]
    assert 0.92 < sum(inside) / len(inside) < 0.98


# ---- subsets ----


def uneven_labels() -> torch.Tensor:
    return torch.tensor([0] * 100 + [1] * 50 + [2] * 7 + [-1] * 20)[
        torch.randperm(177, generator=generator(4))
    ]


def test_fractions_are_stratified_and_never_empty() -> None:
    labels_N = uneven_labels()
    sizes = fraction_sizes(labels_N, 3, 0.1)
    assert sizes == [10, 5, 1]
    ids = choose(labels_N, sizes, generator())
    assert class_sizes(labels_N[ids], 3) == sizes
    assert len(set(ids.tolist())) == 16 and (labels_N[ids] >= 0).all()


def test_draws_differ_and_fewer_are_a_part_of_more() -> None:
    labels_N = uneven_labels()
    few, more = (set(choose(labels_N, [s, s, s], generator()).tolist()) for s in (2, 6))
    other = set(choose(labels_N, [2, 2, 2], generator(1)).tolist())
    assert few < more and few != other


def test_too_many_per_class_names_the_class() -> None:
    with pytest.raises(ConfigError, match=r"8 labelled images of class 2.*has 7"):
        choose(uneven_labels(), [8, 8, 8], generator())


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5])
def test_impossible_fractions(fraction: float) -> None:
    with pytest.raises(ConfigError, match="share of the labels"):
        fraction_sizes(uneven_labels(), 3, fraction)


def test_hold_out_is_a_partition_that_leaves_single_images_alone() -> None:
    labels_N = torch.tensor([0] * 10 + [1] * 2 + [2])
    kept, held = hold_out(labels_N, 3, 0.2, generator())
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(13))
    assert class_sizes(labels_N[held], 3) == [2, 1, 0]


# ---- label noise ----


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.6, 1.0])
def test_symmetric_noise_has_exactly_the_rate_in_every_class(rate: float) -> None:
    labels_N = torch.arange(4000) % 4
    noisy_N = symmetric(labels_N, 4, rate, generator())
    for label in range(4):
        wrong = noisy_N[labels_N == label] != label
        assert int(wrong.sum()) == round(1000 * rate)
    if rate == 1.0:
        counts = Counter(noisy_N[labels_N == 0].tolist())
        assert set(counts) == {1, 2, 3}
        assert all(abs(count - 1000 / 3) < 5 * math.sqrt(1000 * 2 / 9) for count in counts.values())


def test_asymmetric_noise_goes_where_the_map_says() -> None:
    labels_N = torch.arange(1000) % 10
    noisy_N = asymmetric(labels_N, CIFAR10_CONFUSIONS, 0.4, generator())
    for label, target in enumerate(CIFAR10_CONFUSIONS):
        found = Counter(noisy_N[labels_N == label].tolist())
        assert found == ({label: 100} if target == label else {label: 60, target: 40})
    assert next_class(3) == (1, 2, 0)


def test_a_higher_rate_keeps_what_was_wrong() -> None:
    labels_N = torch.arange(600) % 6
    low_N, high_N = (symmetric(labels_N, 6, rate, generator(3)) for rate in (0.2, 0.5))
    wrong_N = low_N != labels_N
    assert torch.equal(low_N[wrong_N], high_N[wrong_N])


def test_impossible_noise() -> None:
    labels_N = torch.zeros(4, dtype=torch.int64)
    with pytest.raises(ConfigError, match="rate must be from 0 to 1"):
        symmetric(labels_N, 2, 1.1, generator())
    with pytest.raises(ConfigError, match="one class"):
        symmetric(labels_N, 1, 0.1, generator())
    with pytest.raises(ConfigError, match="classes from 0 to 1"):
        asymmetric(labels_N, (0, 2), 0.1, generator())


# ---- the probe ----


def clustered(number: int, seed: int, spread: float = 1.0, width: int = 12) -> FrozenFeatures:
    draw = generator(seed)
    labels_N = torch.arange(number) % 4
    centres_CF = 3 * torch.eye(4, width)
    features_NF = centres_CF[labels_N] + spread * torch.randn(number, width, generator=draw)
    return FrozenFeatures(features_NF, labels_N)


@pytest.mark.parametrize("number", [60, 700])
def test_the_gradient_by_hand_is_that_of_autograd(number: int) -> None:
    """The same updates by torch's Adam on the written-out loss, penalties included."""
    train, penalties, scale = clustered(number, 0), (1e-4, 1e-2), 12**-0.5
    weight_GFC, bias_GC = fit(train, 4, penalties, generator(), QUICK)
    for index, penalty in enumerate(penalties):
        weight_FC = torch.zeros(12, 4, requires_grad=True)
        bias_C = torch.zeros(4, requires_grad=True)
        optimizer = torch.optim.Adam([weight_FC, bias_C], lr=QUICK.learning_rate, eps=1e-6)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, QUICK.num_updates)
        draw, waiting = generator(), []
        for _ in range(QUICK.num_updates):
            ids = torch.arange(number)
            if number > QUICK.batch_size:
                if not waiting:
                    order = torch.randperm(number, generator=draw)
                    waiting = list(order[: number // 256 * 256].split(256))
                ids = waiting.pop()
            logits = scale * train.features_NF[ids] @ weight_FC + bias_C
            loss = nn.functional.cross_entropy(logits, train.labels_N[ids])
            loss = loss + penalty / 2 * weight_FC.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        torch.testing.assert_close(
            weight_GFC[index], scale * weight_FC.detach(), rtol=2e-3, atol=2e-3
        )
        torch.testing.assert_close(bias_GC[index], bias_C.detach(), rtol=2e-3, atol=2e-3)


def test_noise_asks_for_a_stronger_penalty() -> None:
    clean = clustered(200, 0, spread=0.3, width=100)
    noisy = FrozenFeatures(clean.features_NF, symmetric(clean.labels_N, 4, 0.6, generator()))
    assert fit_probe(clean, 4, generator()).penalty < fit_probe(noisy, 4, generator()).penalty


def test_one_image_per_class_still_gives_a_probe() -> None:
    train, test = clustered(4, 0, spread=0.1), clustered(100, 1, spread=0.1)
    probe = fit_probe(train, 4, generator(), QUICK)
    assert probe.penalty == QUICK.fallback_penalty
    assert torch.equal(probe.predict(test.features_NF), test.labels_N)
    with pytest.raises(ConfigError, match="at least 1 labelled"):
        fit_probe(
            FrozenFeatures(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)), 2, generator()
        )


# ---- protocols ----


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_is_deterministic_and_leaves_the_encoder_alone(protocol: str) -> None:
    one = synthetic_subject()
    backbone = one.encoder.backbone.train()
    before, random_before = state_digest(backbone), torch.get_rng_state()
    scores = evaluate(one, protocol, SMALL[protocol])
    assert state_digest(backbone) == before and backbone.training
    assert torch.equal(torch.get_rng_state(), random_before)
    again = evaluate(synthetic_subject(), protocol, SMALL[protocol])
    assert list(map(repr, scores)) == list(map(repr, again))
    assert {score.protocol for score in scores} == {protocol}
    keys = [(score.condition, score.metric, score.draw) for score in scores]
    assert len(set(keys)) == len(keys)
    ordered = {(one.level_name, one.level_is_share) for one in scores if math.isfinite(one.level)}
    assert ordered == LEVELS.get(protocol, set())
    for score in scores:
        if score.metric == "top1" and math.isfinite(score.low):
            assert 0 <= score.low <= score.value <= score.high <= 1


def by_condition(scores: list[Score]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for score in scores:
        found.setdefault(score.condition, []).append(score.value)
    return found


def test_perfect_features_score_1_and_features_that_say_nothing_score_chance() -> None:
    options = {
        "limited_labels": {"fractions": [0.5], "per_class": [20], "draws": 2},
        "knn": {"k": 20},
    }
    for protocol, chosen in options.items():
        good = evaluate(subject(Pixels(), marked(noise=0)), protocol, chosen)
        assert all(score.value > 0.97 for score in good)
        for score in evaluate(subject(Shuffled(), marked()), protocol, chosen):
            assert 0.05 < score.value < 0.4


def test_subsets_and_noise_do_not_depend_on_the_encoder() -> None:
    options = {"fractions": [0.1], "per_class": [], "draws": 1}
    first = evaluate(subject(Pixels(), marked(), name="a"), "limited_labels", options)
    second = evaluate(subject(Pixels(), marked(), name="b"), "limited_labels", options)
    assert first == second
    assert first != evaluate(subject(Pixels(), marked(), seed=1), "limited_labels", options)


def test_more_labels_and_less_noise_are_better() -> None:
    noisy_pixels = subject(Pixels(), marked(noise=240))
    few, more = by_condition(
        evaluate(
            noisy_pixels, "limited_labels", {"fractions": [], "per_class": [2, 60], "draws": 3}
        )
    ).values()
    assert sum(more) > sum(few)
    noise = by_condition(
        evaluate(
            noisy_pixels,
            "noisy_labels",
            {"symmetric_rates": [0.7], "asymmetric_rates": [], "draws": 1},
        )
    )
    assert noise["no noise"] > noise["symmetric 70 %"]


def test_amounts_are_in_order_and_carry_their_size() -> None:
    scores = evaluate(
        subject(Pixels(), marked()), "limited_labels",
        {"fractions": [0.1, 0.5], "per_class": [2], "draws": 1},
    )  # fmt: skip
    assert [(score.condition, score.level) for score in scores] == [
        ("2 per class", 10), ("10 % of the labels", 40), ("50 % of the labels", 200),
    ]  # fmt: skip


def test_asymmetric_noise_above_one_half_turns_the_probe() -> None:
    """A perfect encoder learns the wrong classes it is shown, and clean test labels say so."""
    scores = evaluate(
        subject(Pixels(), marked(noise=0)), "noisy_labels",
        {"symmetric_rates": [], "asymmetric_rates": [0.2, 0.9], "draws": 1},
    )  # fmt: skip
    found = by_condition(scores)
    assert found["asymmetric 20 %"][0] > 0.95 and found["asymmetric 90 %"][0] < 0.05


def test_an_even_part_has_as_many_images_as_the_long_tail() -> None:
    scores = evaluate(
        subject(Pixels(), marked(noise=240)), "imbalance", {"gammas": [0.2], "draws": 2}
    )
    found = by_condition(scores)
    assert set(found) == {"long tail, gamma 0.2", "even, gamma 0.2"}
    assert sum(found["even, gamma 0.2"]) > sum(found["long tail, gamma 0.2"])


def test_the_long_tail_has_the_sizes_of_the_imbalanced_data_set(monkeypatch) -> None:
    from dogo_fed.evaluation.protocols import imbalance

    asked = []
    original = imbalance.choose

    def noting(labels_N, sizes, generator):
        asked.append(sorted(sizes, reverse=True))
        return original(labels_N, sizes, generator)

    monkeypatch.setattr(imbalance, "choose", noting)
    one = subject(Pixels(), marked(noise=240))
    largest = min(class_sizes(one.probe_train.labels_N, one.num_classes))
    evaluate(one, "imbalance", {"gammas": [0.2], "draws": 1, "smallest_share": 0.25})
    assert asked[0] == class_counts(one.num_classes, 0.2, largest, round(0.25 * largest))


@pytest.mark.parametrize(
    ("name", "class_names", "expected"),
    [
        ("cifar10", (), CIFAR10_CONFUSIONS),
        ("image_folder", CIFAR10_CLASSES, CIFAR10_CONFUSIONS),
        ("image_folder", tuple(one.title() for one in CIFAR10_CLASSES), CIFAR10_CONFUSIONS),
        ("image_folder", tuple("abcdefghij"), next_class(10)),
    ],
)
def test_cifar10s_confusions_are_taken_by_whatever_loader_it_came(name, class_names, expected):
    from dogo_fed.evaluation.protocols.noisy_labels import _targets

    there = SimpleNamespace(
        num_classes=10, dataset=SimpleNamespace(name=name, class_names=class_names)
    )
    assert _targets("auto", there) == expected


def test_transfer_resizes_and_normalises_as_the_encoder_wants() -> None:
    seen = []

    class Watching(Pixels):
        def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
            seen.append(images_NCHW.shape[1:])
            assert images_NCHW.min() >= -0.1 / 0.2 - 1e-5  # the encoder's own mean and deviation
            return super().forward(images_NCHW)

    one = subject(Watching(), marked())
    grey = DataSet(
        name="large grey", train=_resized(one.dataset.train, 24), test=_resized(one.dataset.test, 24),
        num_classes=5, image_size=24, mean=(0.9,), std=(0.01,), fingerprint="other",
    )  # fmt: skip
    (score,) = evaluate(one, "ood", {"targets": [grey]})
    assert score.condition == "large grey" and score.value > 0.9
    assert set(seen) == {torch.Size([1, 8, 8])}


def _resized(source: TensorImages, size: int) -> TensorImages:
    images_NCHW = source.images(torch.arange(len(source))).float()
    large = nn.functional.interpolate(images_NCHW, size=(size, size), mode="nearest")
    return TensorImages(large.to(torch.uint8), source.labels)


def test_digits_test_no_digit_that_digits_m_trains_on() -> None:
    import numpy as np
    from sklearn.datasets import load_digits

    from dogo_fed.data.datasets import build_dataset
    from dogo_fed.data.digits_m import split_digits

    plain = build_dataset("digits", {"seed": 3})
    assert (len(plain.train), len(plain.test), plain.image_size) == (1433, 364, 32)
    bundled = load_digits()
    train_ids, test_ids = split_digits(bundled.target.astype(np.int64), np.random.PCG64(3))
    assert not set(train_ids) & set(test_ids)
    assert plain.test.labels.tolist() == bundled.target[test_ids].tolist()
    ids = torch.arange(len(test_ids))
    shown = plain.test.images(ids)
    assert torch.equal(shown[:, 0], shown[:, 2]) and int(shown.max()) == 255
    # Averaged back to 8 x 8, it is the bundled digit.
    small = nn.functional.avg_pool2d(shown[:, 0].float(), 4) / 255 * 16
    error = (small - torch.from_numpy(bundled.images[test_ids])).abs().mean()
    assert error < 1.5


def test_ood_takes_the_kin_of_what_was_trained_on() -> None:
    home = DataConfig(name="digits_m", options={"seed": 7})
    targets = [{"name": "digits", "options": {"seed": 7}}]
    assert with_targets("ood", {}, home) == {"targets": targets}
    assert with_targets("ood", {"targets": targets}, home) == {"targets": targets}
    assert with_targets("ood", {}, DataConfig(name="cifar10")) == {}
    assert with_targets("linear", {"epochs": 3}, home) == {"epochs": 3}
    for other in ("digits", {"name": "digits", "options": {"seed": 6}}):
        with pytest.raises(ConfigError, match="would test digits that digits_m with seed 7"):
            with_targets("ood", {"targets": [other]}, home)


# ---- what can not be ----

IMPOSSIBLE = {
    "unknown protocol": ("limited_label", {}, "did you mean 'limited_labels'"),
    "unknown option": ("knn", {"kk": 3}, "no option 'kk'"),
    "more neighbours than images": ("knn", {"k": 401}, "k between 1 and 400"),
    "more per class than there are": (
        "limited_labels", {"per_class": [81]}, "81 labelled images of class 0",
    ),
    "no draws": ("limited_labels", {"draws": 0}, "draws must be at least 1"),
    "no list": ("limited_labels", {"fractions": "0.1"}, "fractions must be a list"),
    "twice": ("limited_labels", {"fractions": [0.1, 0.1]}, "lists a value twice"),
    "rate above 1": ("noisy_labels", {"symmetric_rates": [20]}, "from 0 to 1"),
    "unknown mapping": ("noisy_labels", {"mapping": "random"}, "mapping must be"),
    "map of another set": ("noisy_labels", {"mapping": "cifar10"}, "for 10 classes, but marked has 5"),
    "unknown corruption": ("corruptions", {"names": ["fogg"]}, "did you mean 'fog'"),
    "severity 6": ("corruptions", {"severities": [6]}, "whole number from 1 to 5"),
    "too many test images": ("corruptions", {"test_images": 151}, "from 1 to the 150"),
    "unknown target": ("ood", {"targets": ["cifar11"]}, "unknown data set 'cifar11'"),
    "unknown augmentation": ("health", {"augmentation": "simclrr"}, "simclrr"),
    "gamma of 0": ("imbalance", {"gammas": [0]}, "gamma above 0"),
}  # fmt: skip


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_what_can_not_be_is_one_clear_sentence(what: str) -> None:
    protocol, options, message = IMPOSSIBLE[what]
    with pytest.raises(ConfigError, match=message):
        evaluate(subject(Pixels(), marked()), protocol, options)


@pytest.mark.parametrize("protocol", [*PROTOCOLS, PROTOCOLS["knn"]])
@pytest.mark.parametrize(
    ("train", "test", "reason"),
    [(0, 0, "all training images that have a class"), (-1, -1, "no training image has a class")],
)
def test_no_accuracy_is_counted_where_it_says_nothing(
    protocol: str, train: int, test: int, reason: str
) -> None:
    """With one class every answer is right; the health needs no labels."""
    marks = marked(name="of one class")
    dataset = dataclasses.replace(
        marks,
        train=TensorImages(marks.train.images(torch.arange(60)), torch.full((60,), train)),
        test=TensorImages(marks.test.images(torch.arange(20)), torch.full((20,), test)),
        num_classes=1,
    )
    options = {"targets": [marked(), dataset]} if protocol == "ood" else {}
    there = subject(Pixels(), marked() if protocol == "ood" else dataset)
    if protocol == "health":
        assert evaluate(there, protocol, options)
        return
    with pytest.raises(DataError, match=f"of one class: no accuracy.*{reason}.*protocol=health"):
        evaluate(there, protocol, options)


def test_two_folders_are_two_targets_and_their_streams_are_named_as_ever() -> None:
    one = subject(Pixels(), marked())
    folders = [
        dataclasses.replace(
            marked(noise=40 + number, name="image_folder"), title=title, fingerprint=title
        )
        for number, title in enumerate(("cats", "dogs"))
    ]
    found = evaluate(one, "ood", {"targets": folders})
    assert [score.condition for score in found] == ["cats", "dogs"]
    for folder, score in zip(folders, found, strict=True):
        before = dataclasses.replace(folder, title="image_folder")
        (expected,) = evaluate(one, "ood", {"targets": [before]})
        assert expected.condition == "image_folder" and expected.value == score.value
    with pytest.raises(ConfigError, match="same name: cats, cats; rename one"):
        evaluate(one, "ood", {"targets": [folders[0], folders[0]]})


def test_a_target_without_test_images_holds_some_out_as_a_run_would(tmp_path) -> None:
    for number in range(24):
        draw(tmp_path / ("cat", "dog")[number % 2] / f"{number}.png", 8 * number, size=8)
    target = {
        "name": "image_folder",
        "options": {"root": str(tmp_path), "image_size": 8, "channels": 1},
    }
    (score,) = evaluate(subject(Pixels(), marked()), "ood", {"targets": [target]})
    assert 0.0 <= score.value <= 1.0


def test_an_error_in_a_target_names_where_its_options_are_typed(tmp_path) -> None:
    (tmp_path / "1.png").write_bytes(b"no image")
    target = {"name": "image_folder", "options": {"root": str(tmp_path)}}
    with pytest.raises(
        DataError, match=r"target image_folder: .*typed as 'protocol\.ood\.targets="
    ):
        evaluate(subject(Pixels(), marked()), "ood", {"targets": [target]})


def test_the_health_of_images_without_a_test_part_is_that_of_the_training_images() -> None:
    dataset = marked()
    none = dataclasses.replace(
        dataset, test=Subset(dataset.test, torch.tensor([], dtype=torch.int64))
    )
    found = evaluate(subject(Pixels(), none), "health", {})
    assert {score.condition for score in found} == {"training images"}
    expected = evaluate(
        subject(Pixels(), dataclasses.replace(dataset, test=dataset.train)), "health", {}
    )
    assert [one.value for one in found] == [one.value for one in expected]


def test_too_many_labels_of_a_class_are_answered_with_a_number_that_fits() -> None:
    dataset = dataclasses.replace(
        marked(), class_names=("cat", "dog", "owl", "emu")[: marked().num_classes]
    )
    smallest = min(class_sizes(dataset.train.labels, dataset.num_classes))
    options = {"fractions": [], "per_class": [5, 1000]}
    with pytest.raises(ConfigError) as caught:
        check_labels("limited_labels", options, dataset)
    text = str(caught.value)
    assert "of class 0 (cat) were asked for" in text
    assert f"such as per_class=[5,{smallest}] among its options" in text
    check_labels("limited_labels", {**options, "per_class": [5, smallest]}, dataset)
    check_labels("linear", {}, dataset)


def test_the_training_set_is_no_transfer() -> None:
    one = subject(Pixels(), marked())
    at_home = Subject(
        Encoder(name="x", backbone=Pixels(), inputs=Inputs.of(one.dataset),
                trained_on=one.dataset.fingerprint), one.dataset, 0,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="is what the encoder was trained on"):
        evaluate(at_home, "ood", {})


def test_images_of_other_channels_are_refused() -> None:
    with pytest.raises(DataError, match="takes images of 1 channels, but these have 3"):
        evaluate(subject(Pixels(), marked()), "ood", {"targets": ["synthetic"]})


def test_a_protocol_that_changes_the_encoder_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    import dogo_fed.evaluation.protocols.knn as module

    def meddling(subject: Subject) -> list[Score]:
        subject.encoder.backbone.norm.running_mean.add_(1)
        return []

    monkeypatch.setattr(module, "knn", meddling)
    with pytest.raises(EvaluationError, match=r"norm\.running_mean"):
        evaluate(subject(Pixels(), marked()), "knn", {})


def test_the_protocol_knn_and_that_of_a_run_divide_by_the_same() -> None:
    assert complete_options("knn", {})["temperature"] == EvalConfig().knn_temperature


def test_a_protocol_of_ones_own_by_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def mine(subject: Subject, *, value: float = 0.25) -> list[Score]:
        return [Score("mine", "here", 0, "top1", value)]

    monkeypatch.setattr("tests.support.toy_peers.mine", mine, raising=False)
    assert complete_options("tests.support.toy_peers:mine", {}) == {"value": 0.25}
    (score,) = evaluate(subject(Pixels(), marked()), "tests.support.toy_peers:mine", {"value": 0.5})
    assert score.value == 0.5
