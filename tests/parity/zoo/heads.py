"""Backbones with other heads than one linear layer under the library's name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from effnet.data.torchvision_compat import declare_operators
from effnet.metadata import Numerics
from tests.parity.zoo import networks
from tests.parity.zoo.table import FLOAT64_LIMIT, Opens, Sample, ZooFile
from tests.parity.zoo.user_modules import (
    Siamese,
    TwoHeads,
    photo_classifier,
    randomize_head,
    with_head,
    without_classifier,
)

SAME, NATIVE = Numerics("same", 1e-3), Numerics("symmetric", 1e-5)
# What `predict` must say of a backbone without a classifier
NO_CLASSIFIER = ("(?i)classifier",)
FOLDED_LIMIT = 10 * FLOAT64_LIMIT  # batch norm folded into the classifier is rounded to float32


def files() -> Iterator[ZooFile]:
    for name, write in ONE_LINEAR.items():
        yield ZooFile(
            "one linear layer as head", name, write, Opens(limit=FOLDED_LIMIT if "BatchNorm" in name else FLOAT64_LIMIT)
        )
    for name, write in OTHER_HEADS.items():
        expected = Opens(classes=0, compared="embedding", says=("(?i)classifier",), predict_says=NO_CLASSIFIER)
        yield ZooFile("another head: the backbone opens", name, write, expected)
    yield ZooFile(
        "another head: the backbone opens",
        "two linear layers, either of which could be meant",
        write_two_heads,
        Opens(classes=0, compared="embedding", predict_says=("--head", "species", "color"), says=("species", "color")),
    )
    yield ZooFile(
        "another head: the backbone opens",
        "generalized mean pooling",
        write_generalized_mean,
        Opens(classes=0, compared="embedding", says=(r"global_pool\.p",), predict_says=NO_CLASSIFIER),
    )
    yield ZooFile(
        "backbone alone", "timm with num_classes=0", write_bare_timm, Opens(classes=0, predict_says=NO_CLASSIFIER)
    )
    yield ZooFile(
        "backbone alone",
        "torchvision's create_feature_extractor",
        write_feature_extractor,
        Opens(classes=0, compared="stage7"),
    )
    yield ZooFile(
        "backbone alone",
        "timm with features_only",
        write_features_only,
        Opens(classes=0, compared="stage7", says=("(?i)head",), predict_says=NO_CLASSIFIER),
    )
    for name, (write, numerics) in ENCODERS.items():
        options = {"numerics": numerics}
        yield ZooFile(
            "segmentation encoder",
            name,
            write,
            Opens(classes=0, compared="stage7", says=("encoder",), predict_says=NO_CLASSIFIER, options=options),
        )


# Heads that are one linear layer -------------------------------------------------------------------------------------


def write_with_head(
    source: Callable[[], nn.Module], name: str, make_head: Callable[[], nn.Module], folder: Path
) -> Sample:
    """Write the state dict of a network whose classifier was replaced."""
    network = with_head(source(), name, make_head())
    path = folder / "best.pth"
    torch.save(network.state_dict(), path)
    return networks.sample(path, network)


def dropout_linear() -> nn.Module:
    return nn.Sequential(nn.Dropout(0.3), nn.Linear(1280, networks.CLASSES))


def norm_linear() -> nn.Module:
    return nn.Sequential(nn.BatchNorm1d(1280), nn.Dropout(0.5), nn.Linear(1280, networks.CLASSES))


def linear_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(1280, networks.CLASSES), nn.BatchNorm1d(networks.CLASSES))


def norm_linear_without_bias() -> nn.Module:
    """Return the neck of person re-identification."""
    return nn.Sequential(nn.BatchNorm1d(1280), nn.Linear(1280, networks.CLASSES, bias=False))


def linear() -> nn.Module:
    return nn.Linear(1280, networks.CLASSES)


def linear_without_bias() -> nn.Module:
    return nn.Linear(1280, networks.CLASSES, bias=False)


def linear_softmax() -> nn.Module:
    """Return a classifier that answers log probabilities: they have no weights, and differ by a constant."""
    return nn.Sequential(nn.Flatten(), nn.Linear(1280, networks.CLASSES))


def write_backbone_and_fc(bias: bool, folder: Path) -> Sample:
    network = photo_classifier(bias)
    path = folder / "fold0_best.pth"
    torch.save({"model": network.state_dict(), "oof": torch.zeros(10, networks.CLASSES).numpy()}, path)
    return networks.sample(path, network)


def write_sequential(folder: Path) -> Sample:
    """Write ``nn.Sequential(backbone, nn.Linear)``: names 0.… and 1.…."""
    network = nn.Sequential(without_classifier(networks.timm()), randomize_head(linear())).eval()
    path = folder / "sequential.pth"
    torch.save(network.state_dict(), path)
    return networks.sample(path, network)


ONE_LINEAR = {
    "Dropout and Linear in timm": partial(write_with_head, networks.timm, "classifier", dropout_linear),
    "BatchNorm, Dropout, Linear in timm": partial(write_with_head, networks.timm, "classifier", norm_linear),
    "Linear, BatchNorm in timm": partial(write_with_head, networks.timm, "classifier", linear_norm),
    "BatchNorm and Linear without bias in timm": partial(
        write_with_head, networks.timm, "classifier", norm_linear_without_bias
    ),
    "Linear without bias in timm": partial(write_with_head, networks.timm, "classifier", linear_without_bias),
    "Linear as the whole classifier in torchvision": partial(
        write_with_head, networks.torchvision, "classifier", linear
    ),
    "Dropout and Linear within torchvision's": partial(
        write_with_head, networks.torchvision, "classifier.1", dropout_linear
    ),
    "Dropout and Linear in EfficientNet-PyTorch": partial(write_with_head, networks.lukemelas, "_fc", dropout_linear),
    "Flatten and Linear in EfficientNet-PyTorch": partial(write_with_head, networks.lukemelas, "_fc", linear_softmax),
    "backbone and fc of a competition": partial(write_backbone_and_fc, True),
    "backbone and fc without bias": partial(write_backbone_and_fc, False),
    "Sequential of backbone and Linear": write_sequential,
}

# Heads that are not --------------------------------------------------------------------------------------------------


def write_with_other_head(
    source: Callable[[], nn.Module], name: str, make_head: Callable[[], nn.Module], folder: Path
) -> Sample:
    path = folder / "best.pth"
    torch.save(with_head(source(), name, make_head()).state_dict(), path)
    return networks.pooled_sample(path, source())


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(1280, 256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, networks.CLASSES))


def perceptron_with_norms() -> nn.Module:
    return nn.Sequential(
        *(nn.BatchNorm1d(1280), nn.Linear(1280, 512), nn.ReLU(), nn.BatchNorm1d(512)),
        *(nn.Dropout(0.5), nn.Linear(512, networks.CLASSES)),
    )


def write_siamese(folder: Path) -> Sample:
    path = folder / "siamese.pth"
    torch.save(Siamese(without_classifier(networks.timm())).state_dict(), path)
    return networks.pooled_sample(path, networks.timm())


def write_two_heads(folder: Path) -> Sample:
    path = folder / "two_heads.pth"
    torch.save(TwoHeads(without_classifier(networks.timm())).state_dict(), path)
    return networks.pooled_sample(path, networks.timm())


def write_angular_margin(folder: Path) -> Sample:
    """Write a backbone, an embedding layer and ArcFace's class centers: together they are no linear layer."""
    tensors = networks.state(without_classifier(networks.timm()), "backbone.")
    tensors |= {"neck.weight": torch.randn(512, 1280), "neck.bias": torch.zeros(512)}
    tensors |= {"arcface.weight": torch.randn(networks.CLASSES, 512)}
    path = folder / "arcface.pth"
    torch.save(tensors, path)
    return networks.pooled_sample(path, networks.timm())


def write_generalized_mean(folder: Path) -> Sample:
    """Write a linear layer on features that were pooled otherwise: taken as the classifier it would answer wrongly."""
    tensors = networks.state(networks.timm()) | {"global_pool.p": torch.tensor([3.0])}
    path = folder / "gem.pth"
    torch.save(tensors, path)
    return networks.pooled_sample(path, networks.timm())


OTHER_HEADS = {
    "two linear layers in timm": partial(write_with_other_head, networks.timm, "classifier", perceptron),
    "two linear layers and batch norm in torchvision": partial(
        write_with_other_head, networks.torchvision, "classifier", perceptron_with_norms
    ),
    "two linear layers in EfficientNet-PyTorch": partial(write_with_other_head, networks.lukemelas, "_fc", perceptron),
    "siamese encoder with a projection": write_siamese,
    "ArcFace": write_angular_margin,
}

# Backbones alone, and encoders of segmentation -----------------------------------------------------------------------


def write_bare_timm(folder: Path) -> Sample:
    network = without_classifier(networks.timm())
    path = folder / "features.pth"
    torch.save(network.state_dict(), path)
    return networks.pooled_sample(path, networks.timm())


def last_map(network: nn.Module, x: Tensor) -> Tensor:
    """Return the map after the last block, before the head."""
    if hasattr(network, "conv_stem"):  # timm
        out: Tensor = network.blocks(network.bn1(network.conv_stem(x)))  # type: ignore[operator]
        return out
    if hasattr(network, "extract_endpoints"):  # EfficientNet-PyTorch: the last but one is before its head
        endpoints: dict[str, Tensor] = network.extract_endpoints(x)  # type: ignore[operator]
        return endpoints["reduction_5"]
    features: nn.Sequential = network.features  # type: ignore[assignment]
    return features[:-1](x)  # type: ignore[no-any-return]


def last_map_sample(path: Path, network: nn.Module) -> Sample:
    return Sample(path, networks.images(), networks.answer(network, call=last_map))


def write_feature_extractor(folder: Path) -> Sample:
    """Write the graph that torchvision cuts out, up to the last block: there is no head in it."""
    declare_operators()
    from torchvision.models.feature_extraction import create_feature_extractor

    network = networks.torchvision()
    path = folder / "extractor.pth"
    torch.save(create_feature_extractor(network, ["features.7"]).state_dict(), path)
    return last_map_sample(path, network)


def write_features_only(folder: Path) -> Sample:
    from timm import create_model

    network = networks.timm()
    features = create_model("tf_efficientnet_b0", features_only=True)
    tensors = {name: tensor for name, tensor in network.state_dict().items() if name in features.state_dict()}
    features.load_state_dict(tensors, strict=True)
    path = folder / "features_only.pth"
    torch.save(features.state_dict(), path)
    return last_map_sample(path, network)


def decoder() -> dict[str, Tensor]:
    """Return some tensors of a U-Net's decoder and head, named as by segmentation-models-pytorch."""
    return {
        "decoder.blocks.0.conv1.0.weight": torch.randn(8, 16, 3, 3),
        "decoder.blocks.0.conv1.1.weight": torch.ones(8),
        "decoder.blocks.0.conv1.1.bias": torch.zeros(8),
        "decoder.blocks.0.conv1.1.running_mean": torch.zeros(8),
        "decoder.blocks.0.conv1.1.running_var": torch.ones(8),
        "decoder.blocks.0.conv1.1.num_batches_tracked": torch.tensor(3),
        "segmentation_head.0.weight": torch.randn(1, 8, 3, 3),
        "segmentation_head.0.bias": torch.zeros(1),
    }


def write_encoder(source: Callable[[], nn.Module], prefix: str, left_out: tuple[str, ...], folder: Path) -> Sample:
    """Write by hand as segmentation-models-pytorch names its encoders: it is not installed with the tests."""
    network = source()
    tensors = {name: value for name, value in networks.state(network).items() if not name.startswith(left_out)}
    path = folder / "unet.pth"
    torch.save({f"{prefix}{name}": value for name, value in tensors.items()} | decoder(), path)
    return last_map_sample(path, network)


def native() -> nn.Module:
    return networks.timm("efficientnet_b0")


# With or without the head's convolution, which a decoder does not use; each with the padding of its networks
ENCODERS = {
    "efficientnet-b0": (partial(write_encoder, networks.lukemelas, "encoder.", ("_fc",)), SAME),
    "timm-efficientnet-b0": (partial(write_encoder, native, "encoder.", ("classifier",)), NATIVE),
    "tu-tf_efficientnet_b0": (
        partial(write_encoder, networks.timm, "encoder.model.", ("classifier", "conv_head", "bn2")),
        SAME,
    ),
    "in a LightningModule": (partial(write_encoder, networks.lukemelas, "model.encoder.", ("_fc",)), SAME),
}
