"""Evaluation of frozen backbones: counted in full, equal to a slow reference, and without a trace."""

# M = bank images, N = queries, F = features

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dogo_fed.data.source import TensorImages
from dogo_fed.errors import ConfigError, DataError, EvaluationError
from dogo_fed.evaluation import (
    FrozenFeatures,
    extract_features,
    frozen,
    knn_predictions,
    linear_probe,
    state_digest,
    tensor_digests,
)


def backbone() -> torch.nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 3, padding=1),
            torch.nn.BatchNorm2d(4),
            torch.nn.Dropout(0.5),
            torch.nn.AdaptiveAvgPool2d(2),
        )


def images(num_images: int) -> TensorImages:
    draw = torch.Generator().manual_seed(num_images)
    pixels_NCHW = torch.randint(0, 256, (num_images, 1, 6, 6), generator=draw, dtype=torch.uint8)
    return TensorImages(pixels_NCHW, torch.arange(num_images) % 3)


def to_unit(images_BCHW: torch.Tensor) -> torch.Tensor:
    return images_BCHW.float() / 255


def clustered(
    num_images: int, seed: int, spread: float = 1.0, num_classes: int = 4
) -> FrozenFeatures:
    draw = torch.Generator().manual_seed(seed)
    centres_CF = 3 * torch.eye(num_classes, 8)
    labels_N = torch.randint(0, num_classes, (num_images,), generator=draw)
    noise_NF = spread * torch.randn(num_images, 8, generator=draw)
    return FrozenFeatures(centres_CF[labels_N] + noise_NF, labels_N)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestExtractFeatures:
    @pytest.mark.parametrize("batch_size", [1, 4, 10, 11, 64])
    def test_every_image_counts_once_and_in_order(self, batch_size: int) -> None:
        net, source = backbone(), images(11)
        extracted = extract_features(net, source, to_unit, batch_size)
        net.eval()
        with torch.no_grad():
            one_by_one = [
                net(to_unit(source.images(torch.tensor([i])))).flatten() for i in range(11)
            ]
        torch.testing.assert_close(extracted.features_NF, torch.stack(one_by_one))
        assert extracted.labels_N.tolist() == source.labels.tolist()
        assert extracted.features_NF.dtype == torch.float32
        assert not extracted.features_NF.requires_grad

    def test_modes_come_back_for_each_submodule(self) -> None:
        net = backbone().train()
        net[1].eval()
        extract_features(net, images(5), to_unit)
        assert [module.training for module in net.modules()] == [True, True, False, True, True]

    def test_modes_come_back_after_an_error(self) -> None:
        net = backbone().train()
        with pytest.raises(RuntimeError):
            extract_features(net, images(5), lambda images_BCHW: images_BCHW.float()[:, 0, 0])
        assert net.training and net[1].training

    def test_normalisation_buffers_and_random_state_stay(self) -> None:
        net = backbone().train()
        before, random_before = state_digest(net), torch.get_rng_state()
        extract_features(net, images(9), to_unit)
        assert state_digest(net) == before
        assert torch.equal(torch.get_rng_state(), random_before)
        net(to_unit(images(9).images(torch.arange(9))))
        assert state_digest(net) != before, "in train mode the same images do change the buffers"

    def test_random_backbone_gives_the_same_and_leaves_the_random_state(self) -> None:
        class Noisy(torch.nn.Module):
            def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
                return torch.nn.functional.dropout(images_BCHW.flatten(1), training=True)

        random_before = torch.get_rng_state()
        first = extract_features(Noisy(), images(9), to_unit)
        second = extract_features(Noisy(), images(9), to_unit)
        assert torch.equal(first.features_NF, second.features_NF)
        assert torch.equal(torch.get_rng_state(), random_before)

    def test_refuses_features_that_are_not_finite(self) -> None:
        net = backbone()
        with torch.no_grad():
            net[0].bias[0] = math.nan
        with pytest.raises(EvaluationError, match="not finite for 5 of 5"):
            extract_features(net, images(5), to_unit)

    def test_refuses_an_empty_source_and_an_empty_batch(self) -> None:
        with pytest.raises(DataError, match="empty"):
            extract_features(backbone(), images(0), to_unit)
        with pytest.raises(ConfigError, match="batch_size"):
            extract_features(backbone(), images(3), to_unit, batch_size=0)


class TestDigest:
    def test_equal_states_have_equal_digests(self) -> None:
        assert state_digest(backbone()) == state_digest(backbone())
        int(state_digest(backbone()), 16)

    @pytest.mark.parametrize("name", ["running_mean", "num_batches_tracked", "weight"])
    def test_one_bit_changes_it(self, name: str) -> None:
        net = backbone()
        before = state_digest(net)
        tensor = getattr(net[1], name)
        raw = tensor.detach().reshape(-1).view(torch.uint8)
        raw[0] ^= 1
        assert state_digest(net) != before
        raw[0] ^= 1
        assert state_digest(net) == before

    def test_depends_on_names_dtypes_and_shapes(self) -> None:
        def digest(**buffers: torch.Tensor) -> str:
            module = torch.nn.Module()
            for name, tensor in buffers.items():
                module.register_buffer(name, tensor)
            return state_digest(module)

        zeros = torch.zeros(4)
        assert digest(a=zeros) != digest(b=zeros)
        assert digest(a=zeros) != digest(a=zeros.int())
        assert digest(a=zeros) != digest(a=zeros.reshape(2, 2))
        assert digest(a=zeros) != digest(a=zeros, b=torch.zeros(0))
        assert digest(a=torch.zeros(2), b=torch.ones(2)) != digest(
            a=torch.ones(2), b=torch.zeros(2)
        )
        assert digest(a=zeros, b=zeros) == digest(b=zeros, a=zeros), "the order of names is fixed"

    def test_covers_unsaved_and_odd_tensors(self) -> None:
        module = torch.nn.Module()
        module.register_buffer("hidden", torch.zeros(3), persistent=False)
        module.register_buffer("brain", torch.ones(2, dtype=torch.bfloat16))
        module.register_buffer("mask", torch.tensor([True, False]))
        module.register_buffer("strided", torch.arange(6.0).reshape(2, 3).T)
        before = state_digest(module)
        assert list(tensor_digests(module)) == ["brain", "hidden", "mask", "strided"]
        module.hidden[1] = 1.0
        assert state_digest(module) != before


class TestFrozen:
    def test_passes_an_evaluation_that_only_looks(self) -> None:
        net = backbone()
        with frozen(net):
            extract_features(net, images(5), to_unit)

    def test_catches_a_forward_pass_in_train_mode(self) -> None:
        net = backbone().train()
        with (
            pytest.raises(EvaluationError, match=r"'1\.num_batches_tracked' is different \(3 of 7"),
            frozen(net),
        ):
            net(to_unit(images(5).images(torch.arange(5))))

    def test_catches_one_changed_weight(self) -> None:
        net = backbone()
        with pytest.raises(EvaluationError, match=r"'0\.bias'"), frozen(net):
            net[0].bias.data[2] += 1e-6

    def test_catches_an_added_buffer(self) -> None:
        net = backbone()
        with pytest.raises(EvaluationError, match="'extra' is new"), frozen(net):
            net.register_buffer("extra", torch.zeros(1))

    def test_does_not_hide_an_error_of_the_block(self) -> None:
        net = backbone()
        with pytest.raises(KeyError), frozen(net):
            net[0].bias.data[2] += 1
            raise KeyError("evaluation failed")


def knn_reference(
    bank: FrozenFeatures, queries_NF: torch.Tensor, k: int, temperature: float
) -> list[int]:
    """Written from the paper with loops; assumes no ties."""
    predictions = []
    for query_F in queries_NF.tolist():
        neighbours = []
        for image_F, label in zip(bank.features_NF.tolist(), bank.labels_N.tolist(), strict=True):
            dot = sum(q * b for q, b in zip(query_F, image_F, strict=True))
            cosine = dot / (math.hypot(*query_F) * math.hypot(*image_F))
            neighbours.append((cosine, label))
        neighbours.sort(reverse=True)
        votes: dict[int, float] = {}
        for cosine, label in neighbours[:k]:
            votes[label] = votes.get(label, 0.0) + math.exp(cosine / temperature)
        predictions.append(max(votes, key=lambda label: votes[label]))
    return predictions


def knn_top1(
    bank: FrozenFeatures, queries: FrozenFeatures, k: int, temperature: float = 0.07, **others: int
) -> float:
    """Returns the share of labelled queries that are classified correctly."""
    labelled = queries.labelled("kNN queries")
    predictions_N = knn_predictions(bank, labelled.features_NF, k, temperature, **others)
    return int((predictions_N == labelled.labels_N).sum()) / len(labelled.labels_N)


class TestKnn:
    @pytest.mark.parametrize("k", [1, 2, 7, 60])
    @pytest.mark.parametrize("temperature", [0.07, 1.0])
    def test_equals_the_loop_written_reference(self, k: int, temperature: float) -> None:
        bank, queries = clustered(60, 1, spread=2.0), clustered(41, 2, spread=2.0)
        expected = knn_reference(bank, queries.features_NF, k, temperature)
        predicted_N = knn_predictions(bank, queries.features_NF, k, temperature)
        assert predicted_N.tolist() == expected
        correct = sum(p == t for p, t in zip(expected, queries.labels_N.tolist(), strict=True))
        assert knn_top1(bank, queries, k, temperature) == correct / 41
        assert 0 < correct < 41, "a problem that is neither trivial nor hopeless"

    def test_does_not_depend_on_the_order_of_the_bank(self) -> None:
        bank, queries = clustered(60, 1, spread=2.0), clustered(40, 2, spread=2.0)
        order_M = torch.randperm(60, generator=generator())
        shuffled = FrozenFeatures(bank.features_NF[order_M], bank.labels_N[order_M])
        for k in (1, 5, 20):
            assert torch.equal(
                knn_predictions(bank, queries.features_NF, k),
                knn_predictions(shuffled, queries.features_NF, k),
            )

    def test_ties_for_the_last_place_are_shared_whatever_the_order(self) -> None:
        # One copy of class 1 and two of class 2 tie for two places: 2/3 of a vote against 4/3.
        features_NF = torch.tensor([[1.0, 0.0]] * 3)
        for labels in ([1, 2, 2], [2, 1, 2], [2, 2, 1]):
            bank = FrozenFeatures(features_NF, torch.tensor(labels))
            assert knn_predictions(bank, torch.tensor([[2.0, 0.0]]), k=2).tolist() == [2]

    def test_ties_for_the_last_place_get_no_more_than_that_place(self) -> None:
        # The nearest image has one vote; three that tie for the second place have one together.
        bank = FrozenFeatures(
            torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.8, 0.6], [0.8, 0.6]]),
            torch.tensor([0, 1, 1, 1]),
        )
        query = torch.tensor([[1.0, 0.0]])
        assert knn_predictions(bank, query, k=2, temperature=1.0).tolist() == [0]
        assert knn_predictions(bank, query, k=3, temperature=1.0).tolist() == [1]

    def test_a_tie_of_classes_goes_to_the_lowest(self) -> None:
        for labels in ([3, 1], [1, 3]):
            bank = FrozenFeatures(torch.eye(2), torch.tensor(labels))
            assert knn_predictions(bank, torch.ones(1, 2), k=2).tolist() == [1]

    def test_neither_scale_nor_chunks_change_anything(self) -> None:
        bank, queries = clustered(60, 1, spread=2.0), clustered(41, 2, spread=2.0)
        scaled = FrozenFeatures(7.5 * bank.features_NF, bank.labels_N)
        reference_N = knn_predictions(bank, queries.features_NF, 9)
        for chunk in (1, 7, 41, 1000):
            got_N = knn_predictions(scaled, queries.features_NF / 3, 9, queries_per_chunk=chunk)
            assert torch.equal(got_N, reference_N)

    def test_survives_a_tiny_temperature(self) -> None:
        bank, queries = clustered(60, 1), clustered(41, 2)
        nearest_N = knn_predictions(bank, queries.features_NF, k=1)
        assert torch.equal(knn_predictions(bank, queries.features_NF, 20, 1e-5), nearest_N)

    def test_unlabelled_images_neither_vote_nor_count(self) -> None:
        bank, queries = clustered(60, 1), clustered(40, 2)
        more_bank = FrozenFeatures(
            torch.cat([queries.features_NF, bank.features_NF]),
            torch.cat([torch.full((40,), -1), bank.labels_N]),
        )
        more_queries = FrozenFeatures(
            torch.cat([queries.features_NF, bank.features_NF]),
            torch.cat([queries.labels_N, torch.full((60,), -1)]),
        )
        assert knn_top1(more_bank, more_queries, 5) == knn_top1(bank, queries, 5)

    def test_refuses_what_can_not_be(self) -> None:
        bank, queries = clustered(10, 1), clustered(4, 2)
        unlabelled = FrozenFeatures(bank.features_NF, torch.full((10,), -1))
        with pytest.raises(ConfigError, match=r"k=11 .* there are 10"):
            knn_top1(bank, queries, k=11)
        with pytest.raises(ConfigError, match="k=0"):
            knn_top1(bank, queries, k=0)
        with pytest.raises(ConfigError, match="temperature"):
            knn_top1(bank, queries, k=3, temperature=0.0)
        with pytest.raises(ConfigError, match="queries_per_chunk"):
            knn_top1(bank, queries, k=3, queries_per_chunk=0)
        with pytest.raises(DataError, match="kNN bank: none of the 10 images has a label"):
            knn_top1(unlabelled, queries, k=3)
        with pytest.raises(DataError, match="kNN queries: none"):
            knn_top1(bank, unlabelled, k=3)
        with pytest.raises(DataError, match="same number of features"):
            knn_predictions(bank, queries.features_NF[:, :3], k=3)

    def test_no_matrix_of_images_and_classes_is_made(self) -> None:
        """Of 100,000 images and 1,000 classes it would have 400 MB, for each chunk of queries."""
        num_bank, num_classes = 2000, 500
        features_NF = torch.randn(num_bank, 4, generator=generator())
        bank = FrozenFeatures(features_NF, torch.arange(num_bank) % num_classes)
        with LargestTensor() as seen:
            knn_predictions(bank, features_NF[:8], k=3, queries_per_chunk=4)
        assert num_bank * 4 <= seen.numel < num_bank * num_classes // 10

    def test_k_counts_labelled_images_only(self) -> None:
        bank = clustered(10, 1)
        half = torch.where(torch.arange(10) < 5, bank.labels_N, -1)
        with pytest.raises(ConfigError, match="there are 5"):
            knn_top1(FrozenFeatures(bank.features_NF, half), clustered(4, 2), k=6)


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that is made inside."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, torch.Tensor):
                self.numel = max(self.numel, one.numel())
        return made


class TestLinearProbe:
    def test_solves_a_separable_problem_and_counts_every_image(self) -> None:
        train, test = clustered(200, 1, spread=0.1), clustered(67, 2, spread=0.1)
        result = linear_probe(train, test, 4, generator(), epochs=200, batch_size=64)
        assert (result.top1, result.num_correct, result.num_test) == (1.0, 67, 67)
        assert result.train_loss < 0.05

    def test_accuracy_is_correct_over_total(self) -> None:
        train, test = clustered(200, 1, spread=0.1), clustered(67, 2, spread=0.1)
        wrong = test.labels_N.clone()
        wrong[-5:] = (wrong[-5:] + 1) % 4
        result = linear_probe(train, FrozenFeatures(test.features_NF, wrong), 4, generator())
        assert result.num_correct == 62
        assert result.top1 == 62 / 67

    @pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
    def test_one_learning_rate_fits_all_scales(self, scale: float) -> None:
        train, test = clustered(300, 1), clustered(100, 2)
        result = linear_probe(
            FrozenFeatures(scale * train.features_NF + 5 * scale, train.labels_N),
            FrozenFeatures(scale * test.features_NF + 5 * scale, test.labels_N),
            4,
            generator(),
        )
        assert result.top1 > 0.9

    def test_a_feature_that_is_dead_in_training_does_no_harm(self) -> None:
        train, test = clustered(200, 1, spread=0.1), clustered(60, 2, spread=0.1)
        train.features_NF[:, 7] = 0.0
        test.features_NF[:, 7] = 1000.0
        assert linear_probe(train, test, 4, generator()).top1 == 1.0

    def test_its_generator_is_its_only_randomness(self) -> None:
        train, test = clustered(200, 1, spread=3.0), clustered(60, 2, spread=3.0)
        first = linear_probe(train, test, 4, generator(7), epochs=3)
        torch.rand(5)
        random_before = torch.get_rng_state()
        second = linear_probe(train, test, 4, generator(7), epochs=3)
        assert second == first
        assert torch.equal(torch.get_rng_state(), random_before)
        assert linear_probe(train, test, 4, generator(8), epochs=3) != first

    def test_trains_inside_no_grad_and_leaves_the_features(self) -> None:
        train, test = clustered(200, 1, spread=0.1), clustered(60, 2, spread=0.1)
        before_NF = train.features_NF.clone()
        with torch.no_grad():
            result = linear_probe(train, test, 4, generator())
            assert not torch.is_grad_enabled()
        assert result.top1 == 1.0
        assert torch.equal(train.features_NF, before_NF)

    def test_unlabelled_images_are_left_out(self) -> None:
        train, test = clustered(200, 1, spread=0.1), clustered(60, 2, spread=0.1)
        test.labels_N[:10] = -1
        train.labels_N[:50] = -1
        result = linear_probe(train, test, 4, generator())
        assert (result.num_correct, result.num_test) == (50, 50)

    def test_refuses_what_can_not_be(self) -> None:
        train, test = clustered(20, 1), clustered(6, 2)
        unlabelled = FrozenFeatures(test.features_NF, torch.full((6,), -1))
        with pytest.raises(DataError, match="linear probe, test: none of the 6"):
            linear_probe(train, unlabelled, 4, generator())
        with pytest.raises(DataError, match="label 3 in a data set of 3 classes"):
            linear_probe(train, test, 3, generator())
        with pytest.raises(DataError, match="8 features in training but 2"):
            narrow = FrozenFeatures(test.features_NF[:, :2], test.labels_N)
            linear_probe(train, narrow, 4, generator())
        with pytest.raises(DataError, match="labels must be classes"):
            linear_probe(train, FrozenFeatures(test.features_NF, test.labels_N - 2), 4, generator())
        with pytest.raises(ConfigError, match="epochs"):
            linear_probe(train, test, 4, generator(), epochs=0)
        with pytest.raises(ConfigError, match="learning_rate"):
            linear_probe(train, test, 4, generator(), learning_rate=0.0)
