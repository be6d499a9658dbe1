"""Figures of the EfficientNet paper as data, exactly as printed; nothing here is computed or measured.

They are from the last version of arXiv:1905.11946 (v5, September 2020) unless noted; its "FLOPs" are multiply-adds.
"""

from dataclasses import dataclass

PAPER_V1, PAPER_V5 = "arXiv:1905.11946v1", "arXiv:1905.11946v5"

# Table 1: operator, resolution (of the stage's input), channels, layers
TABLE1_STAGES = (
    ("Conv3x3", "224 × 224", "32", "1"),
    ("MBConv1, k3x3", "112 × 112", "16", "1"),
    ("MBConv6, k3x3", "112 × 112", "24", "2"),
    ("MBConv6, k5x5", "56 × 56", "40", "2"),
    ("MBConv6, k3x3", "28 × 28", "80", "3"),
    ("MBConv6, k5x5", "14 × 14", "112", "3"),
    ("MBConv6, k5x5", "14 × 14", "192", "4"),
    ("MBConv6, k3x3", "7 × 7", "320", "1"),
    ("Conv1x1 & Pooling & FC", "7 × 7", "1280", "1"),
)


@dataclass(frozen=True)
class Table2Row:
    """A row of Table 2. ``group``: the EfficientNet that it is compared with and its ratios refer to."""

    key: str  # of ARCHS or BASELINES
    title: str
    group: str
    top1: str
    top5: str
    params: str
    macs: str
    params_ratio: str = "1x"
    macs_ratio: str = "1x"


# fmt: off – as it is printed
TABLE2 = (
    Table2Row("b0", "EfficientNet-B0", "b0", "77.1%", "93.3%", "5.3M", "0.39B"),
    Table2Row("resnet50", "ResNet-50", "b0", "76.0%", "93.0%", "26M", "4.1B", "4.9x", "11x"),
    Table2Row("densenet169", "DenseNet-169", "b0", "76.2%", "93.2%", "14M", "3.5B", "2.6x", "8.9x"),
    Table2Row("b1", "EfficientNet-B1", "b1", "79.1%", "94.4%", "7.8M", "0.70B"),
    Table2Row("resnet152", "ResNet-152", "b1", "77.8%", "93.8%", "60M", "11B", "7.6x", "16x"),
    Table2Row("densenet264", "DenseNet-264", "b1", "77.9%", "93.9%", "34M", "6.0B", "4.3x", "8.6x"),
    Table2Row("inception_v3", "Inception-v3", "b1", "78.8%", "94.4%", "24M", "5.7B", "3.0x", "8.1x"),
    Table2Row("xception", "Xception", "b1", "79.0%", "94.5%", "23M", "8.4B", "3.0x", "12x"),
    Table2Row("b2", "EfficientNet-B2", "b2", "80.1%", "94.9%", "9.2M", "1.0B"),
    Table2Row("inception_v4", "Inception-v4", "b2", "80.0%", "95.0%", "48M", "13B", "5.2x", "13x"),
    Table2Row("inception_resnet_v2", "Inception-ResNet-v2", "b2", "80.1%", "95.1%", "56M", "13B", "6.1x", "13x"),
    Table2Row("b3", "EfficientNet-B3", "b3", "81.6%", "95.7%", "12M", "1.8B"),
    Table2Row("resnext101", "ResNeXt-101", "b3", "80.9%", "95.6%", "84M", "32B", "7.0x", "18x"),
    Table2Row("polynet", "PolyNet", "b3", "81.3%", "95.8%", "92M", "35B", "7.7x", "19x"),
    Table2Row("b4", "EfficientNet-B4", "b4", "82.9%", "96.4%", "19M", "4.2B"),
    Table2Row("senet154", "SENet", "b4", "82.7%", "96.2%", "146M", "42B", "7.7x", "10x"),
    Table2Row("nasnet_a", "NASNet-A", "b4", "82.7%", "96.2%", "89M", "24B", "4.7x", "5.7x"),
    Table2Row("amoebanet_a", "AmoebaNet-A", "b4", "82.8%", "96.1%", "87M", "23B", "4.6x", "5.5x"),
    Table2Row("pnasnet5", "PNASNet", "b4", "82.9%", "96.2%", "86M", "23B", "4.5x", "6.0x"),
    Table2Row("b5", "EfficientNet-B5", "b5", "83.6%", "96.7%", "30M", "9.9B"),
    Table2Row("amoebanet_c", "AmoebaNet-C", "b5", "83.5%", "96.5%", "155M", "41B", "5.2x", "4.1x"),
    Table2Row("b6", "EfficientNet-B6", "b6", "84.0%", "96.8%", "43M", "19B"),
    Table2Row("b7", "EfficientNet-B7", "b7", "84.3%", "97.0%", "66M", "37B"),
    Table2Row("gpipe", "GPipe", "b7", "84.3%", "97.0%", "557M", "-", "8.4x", "-"),
)

# Table 2 of v1 (May 2019): top-1 and top-5 before the networks were retrained for v5
TABLE2_V1 = {
    "b0": ("76.3%", "93.2%"),
    "b1": ("78.8%", "94.4%"),
    "b2": ("79.8%", "94.9%"),
    "b3": ("81.1%", "95.5%"),
    "b4": ("82.6%", "96.3%"),
    "b5": ("83.3%", "96.7%"),
    "b6": ("84.0%", "96.9%"),
    "b7": ("84.4%", "97.1%"),
}


@dataclass(frozen=True)
class ScaledRow:
    """A row of Table 3 or 7: the network, its scaling factors, "FLOPS" and top-1."""

    base: str  # "mobilenet_v1", "mobilenet_v2", "resnet50", "b0"
    title: str
    macs: str
    top1: str
    depth: float = 1.0
    width: float = 1.0
    resolution: float = 1.0
    factors_printed: bool = True


TABLE3 = (
    ScaledRow("mobilenet_v1", "MobileNetV1", "0.6B", "70.6%"),
    ScaledRow("mobilenet_v1", "MobileNetV1, width × 2", "2.2B", "74.2%", width=2),
    ScaledRow("mobilenet_v1", "MobileNetV1, resolution × 2", "2.2B", "72.7%", resolution=2),
    ScaledRow("mobilenet_v1", "MobileNetV1, compound", "2.3B", "75.6%", 1.4, 1.2, 1.3),
    ScaledRow("mobilenet_v2", "MobileNetV2", "0.3B", "72.0%"),
    ScaledRow("mobilenet_v2", "MobileNetV2, depth × 4", "1.2B", "76.8%", depth=4),
    ScaledRow("mobilenet_v2", "MobileNetV2, width × 2", "1.1B", "76.4%", width=2),
    ScaledRow("mobilenet_v2", "MobileNetV2, resolution × 2", "1.2B", "74.8%", resolution=2),
    ScaledRow("mobilenet_v2", "MobileNetV2, compound", "1.3B", "77.4%", factors_printed=False),
    ScaledRow("resnet50", "ResNet-50", "4.1B", "76.0%"),
    ScaledRow("resnet50", "ResNet-50, depth × 4", "16.2B", "78.1%", depth=4),
    ScaledRow("resnet50", "ResNet-50, width × 2", "14.7B", "77.7%", width=2),
    ScaledRow("resnet50", "ResNet-50, resolution × 2", "16.4B", "77.5%", resolution=2),
    ScaledRow("resnet50", "ResNet-50, compound", "16.7B", "78.8%", factors_printed=False),
)

# Table 7, and the five networks of Figure 7
TABLE7 = (
    ScaledRow("b0", "EfficientNet-B0", "0.4B", "77.3%"),
    ScaledRow("b0", "depth × 4", "1.8B", "79.0%", depth=4),
    ScaledRow("b0", "width × 2", "1.8B", "78.9%", width=2),
    ScaledRow("b0", "resolution × 2", "1.9B", "79.1%", resolution=2),
    ScaledRow("b0", "compound", "1.8B", "81.1%", 1.4, 1.2, 1.3),
)


@dataclass(frozen=True)
class Table4Pair:
    """Two networks of Table 4: their accuracies and seconds, and the speed-up of the EfficientNet."""

    baseline: str
    ours: str
    baseline_title: str
    ours_title: str
    baseline_top1: str
    ours_top1: str
    baseline_seconds: str
    ours_seconds: str
    speedup: str


# Batch 1 on one core of an Intel Xeon E5-2690, means of 20 runs; accuracies are those of v1, in v5 too
TABLE4 = (
    Table4Pair("resnet152", "b1", "ResNet-152", "EfficientNet-B1", "77.8%", "78.8%", "0.554s", "0.098s", "5.7x"),
    Table4Pair("gpipe", "b7", "GPipe", "EfficientNet-B7", "84.3%", "84.4%", "19.0s", "3.1s", "6.1x"),
)


@dataclass(frozen=True)
class Table5Row:
    """Half a row of Table 5: a baseline and ours on one dataset. Params are without the classifier."""

    dataset: str
    baseline: str  # of BASELINES; "" for DAT, which is a training method
    baseline_title: str
    baseline_top1: str
    baseline_params: str
    ours: str
    top1: str
    params: str
    ratio: str


TABLE5_PUBLIC = (
    Table5Row("CIFAR-10", "nasnet_a", "NASNet-A", "98.0%", "85M", "b0", "98.1%", "4M", "21x"),
    Table5Row("CIFAR-100", "nasnet_a", "NASNet-A", "87.5%", "85M", "b0", "88.1%", "4M", "21x"),
    Table5Row("Birdsnap", "inception_v4", "Inception-v4", "81.8%", "41M", "b5", "82.0%", "28M", "1.5x"),
    Table5Row("Stanford Cars", "inception_v4", "Inception-v4", "93.4%", "41M", "b3", "93.6%", "10M", "4.1x"),
    Table5Row("Flowers", "inception_v4", "Inception-v4", "98.5%", "41M", "b5", "98.5%", "28M", "1.5x"),
    Table5Row("FGVC Aircraft", "inception_v4", "Inception-v4", "90.9%", "41M", "b3", "90.7%", "10M", "4.1x"),
    Table5Row("Oxford-IIIT Pets", "resnet152", "ResNet-152", "94.5%", "58M", "b4", "94.8%", "17M", "5.6x"),
    Table5Row("Food-101", "inception_v4", "Inception-v4", "90.8%", "41M", "b4", "91.5%", "17M", "2.4x"),
)
TABLE5_REPORTED = (
    Table5Row("CIFAR-10", "gpipe", "GPipe", "99.0%", "556M", "b7", "98.9%", "64M", "8.7x"),
    Table5Row("CIFAR-100", "gpipe", "GPipe", "91.3%", "556M", "b7", "91.7%", "64M", "8.7x"),
    Table5Row("Birdsnap", "gpipe", "GPipe", "83.6%", "556M", "b7", "84.3%", "64M", "8.7x"),
    Table5Row("Stanford Cars", "", "DAT", "94.8%", "-", "b7", "94.7%", "-", "-"),
    Table5Row("Flowers", "", "DAT", "97.7%", "-", "b7", "98.8%", "-", "-"),
    Table5Row("FGVC Aircraft", "", "DAT", "92.9%", "-", "b7", "92.9%", "-", "-"),
    Table5Row("Oxford-IIIT Pets", "gpipe", "GPipe", "95.9%", "556M", "b6", "95.4%", "41M", "14x"),
    Table5Row("Food-101", "gpipe", "GPipe", "93.0%", "556M", "b7", "93.0%", "64M", "8.7x"),
)
TABLE5_GEOMETRIC_MEANS = ("4.7x", "9.6x")

# Table 6: training images, test images, classes
TABLE6_DATASETS = {
    "CIFAR-10": (50_000, 10_000, 10),
    "CIFAR-100": (50_000, 10_000, 100),
    "Birdsnap": (47_386, 2_443, 500),
    "Stanford Cars": (8_144, 8_041, 196),
    "Flowers": (2_040, 6_149, 102),
    "FGVC Aircraft": (6_667, 3_333, 100),
    "Oxford-IIIT Pets": (3_680, 3_369, 37),
    "Food-101": (75_750, 25_250, 101),
}

# Table 8: top-1 on ImageNet's validation and test images, then top-5
TABLE8 = {
    "b0": ("77.11%", "77.23%", "93.35%", "93.45%"),
    "b1": ("79.13%", "79.17%", "94.47%", "94.43%"),
    "b2": ("80.07%", "80.16%", "94.90%", "94.98%"),
    "b3": ("81.59%", "81.72%", "95.67%", "95.70%"),
    "b4": ("82.89%", "82.94%", "96.37%", "96.27%"),
    "b5": ("83.60%", "83.69%", "96.71%", "96.64%"),
    "b6": ("83.95%", "84.04%", "96.76%", "96.86%"),
    "b7": ("84.26%", "84.33%", "96.97%", "96.94%"),
}
# fmt: on
