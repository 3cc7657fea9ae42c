"""An evaluation says where each pass of a compiled backbone begins, as training does."""

from __future__ import annotations

import pytest
import torch

from dogo_fed.data.source import TensorImages
from dogo_fed.evaluation.features import extract_features
from tests.support.toy_peers import ToyBackbone, toy_images


@pytest.mark.parametrize("is_a_part", [False, True])
@pytest.mark.parametrize("is_compiled", [False, True])
def test_each_batch_of_a_compiled_backbone_is_a_pass_of_its_own(
    is_compiled, is_a_part, monkeypatch
):
    """Else a GPU that records passes would record each batch as a continuation of the last."""
    told = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: told.append("begins"))
    backbone = ToyBackbone()
    backbone.bn.register_forward_hook(lambda *arguments: told.append("runs"))
    if is_compiled:
        backbone._compiled_call_impl = backbone._call_impl  # what `compile` sets, without the wait
    source = TensorImages(toy_images(6), torch.zeros(6))
    network = torch.nn.Sequential(backbone) if is_a_part else backbone
    features = extract_features(network, source, lambda images: images / 255, batch_size=2)
    assert features.features_NF.shape == (6, 6)
    assert told == (["begins", "runs"] if is_compiled else ["runs"]) * 3
