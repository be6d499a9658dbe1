"""Class activation maps: their sums are the logits, for any network, size and state it is in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import effnet
from effnet import EfficientNet
from effnet.data.preprocessing import normalize
from effnet.explanation import class_activation_maps
from effnet.explanation.attribution import class_indices
from effnet.net.surgery import fold_batch_norm, freeze


def random_images(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def random_network(name: str, classes: int = 7) -> EfficientNet:
    """A network without default batch norms and zero biases."""
    torch.manual_seed(1)
    model = effnet.create(name, classes).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.3, 1.5)
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.normal_(module.bias, 0, 0.2)
    assert isinstance(model.classifier, nn.Linear)
    nn.init.normal_(model.classifier.bias)
    return model


def without_bias(model: EfficientNet, seen: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> torch.Tensor:
    """Logits (N, classes) less the classifier's bias."""
    assert isinstance(model.classifier, nn.Linear)
    with torch.inference_mode():
        logits: torch.Tensor = model(normalize(torch.from_numpy(seen), model.preprocess))
        return logits - model.classifier.bias


@pytest.mark.parametrize(
    ("name", "size"),
    [("nano", (32, 32)), ("nano", (40, 67)), ("b0", (96, 64)), ("lite0", (64, 100)), ("v2_b0", (65, 97))],
    ids=str,
)
def test_map_sums_to_its_logit(name: str, size: tuple[int, int]) -> None:
    model, seen = random_network(name), random_images(2, *size, 3)
    for network in (model, fold_batch_norm(model)):
        maps, logits = class_activation_maps(network, seen), without_bias(network, seen)
        assert maps.dtype == np.float32
        assert maps.shape[:2] == (2, 7)
        assert maps.shape[2:] == network.features(torch.zeros(1, 3, *size))["head"].shape[2:]
        assert maps.shape[2] * maps.shape[3] > 1
        scale = float(logits.abs().max())
        assert np.abs(maps.sum((2, 3)) - logits.numpy()).max() < 1e-4 * scale
        assert maps.std((2, 3)).min() > 0  # a map, not the logit spread evenly


def test_single_image_by_hand() -> None:
    """Of a single image: the head's feature map weighted by the classifier's row, divided by the pixels."""
    model, seen = random_network("nano"), random_images(48, 32, 3)
    with torch.inference_mode():
        last = model.features(normalize(torch.from_numpy(seen[None]), model.preprocess))["head"][0].double().numpy()
    assert isinstance(model.classifier, nn.Linear)
    weight = model.classifier.weight.detach().double().numpy()
    _, high, wide = last.shape
    expected = np.array([[[weight[5] @ last[:, y, x] / (high * wide) for x in range(wide)] for y in range(high)]])
    found = class_activation_maps(model, seen, [5])
    assert found.shape == (1, high, wide)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_order_of_classes() -> None:
    model, seen = random_network("nano"), random_images(2, 32, 32, 3)
    every = class_activation_maps(model, seen)
    assert class_activation_maps(model, seen, [4, 0, 4]) == pytest.approx(every[:, [4, 0, 4]], rel=1e-4, abs=1e-6)
    assert class_activation_maps(model, seen, []).shape == (2, 0, *every.shape[2:])


def test_map_is_where_the_image_changed() -> None:
    model = random_network("nano")
    plain = np.full((128, 128, 3), 90, np.uint8)
    spotted = plain.copy()
    spotted[88:120, 8:40] = random_images(32, 32, 3)  # at the lower left
    changed = np.abs(class_activation_maps(model, spotted) - class_activation_maps(model, plain)).sum(0)
    high, wide = changed.shape
    corner = changed[high // 2 :, : wide // 2].sum()
    assert corner > 0.8 * changed.sum()


def test_network_is_left_as_it_was() -> None:
    model, seen = random_network("nano"), random_images(2, 32, 32, 3)
    expected = class_activation_maps(model, seen)
    freeze(model, "stage1").train()
    model.dropout.p = 0.9
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    assert np.array_equal(class_activation_maps(model, seen), expected)
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_dtypes() -> None:
    model, seen = random_network("nano"), random_images(1, 32, 32, 3)
    expected = class_activation_maps(model, seen)
    assert np.array_equal(
        class_activation_maps(model, seen.astype(np.float32)), expected
    )  # as TensorFlow's resampling gives
    precise = class_activation_maps(model.double(), seen)
    assert precise.dtype == np.float32
    assert precise == pytest.approx(expected, rel=1e-3, abs=1e-5)
    model.float().preprocess = replace(model.preprocess, mean=(0.5,) * 3)
    assert not np.allclose(class_activation_maps(model, seen), expected)


def test_errors() -> None:
    with pytest.raises(ValueError, match="no classifier"):
        class_activation_maps(effnet.create("nano", 0), random_images(32, 32, 3))
    with pytest.raises(ValueError, match="there is no class 3: the network has 3, from 0 to 2"):
        class_activation_maps(effnet.create("nano", 3), random_images(32, 32, 3), [0, 3])
    with pytest.raises(ValueError, match="there is no class -1"):
        class_activation_maps(effnet.create("nano", 3), random_images(32, 32, 3), [-1])


def test_classes_by_name_synset_or_index() -> None:
    model = effnet.create("nano", 3)
    model.labels = effnet.Labels(("hotdog", "tench", "7"))
    assert class_indices(model, ["tench", "Hot Dog", "n01440764", "7", "0", 1]) == [1, 0, 1, 2, 0, 1]
    with pytest.raises(ValueError, match="there is no class 'n00000000'"):
        class_indices(model, ["n00000000"])
