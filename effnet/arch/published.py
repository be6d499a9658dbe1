"""Accuracies as published: ImageNet top-1 in percent, quoted, never measured here.

Lite3 and Lite4: the builder says 280 and 300 pixels, and the published multiply-adds agree with them; timm runs
the same weights at 300 and 380 and gets the same rounded accuracies. Both sizes are named in docs/architectures.md.
"""

from __future__ import annotations

# One row a paper or README table: source, then name → top-1 %.
_V1 = "tensorflow/tpu efficientnet README, AutoAugment column"
_ADVPROP = "tensorflow/tpu efficientnet README, AdvProp column"
_STUDENT = "tensorflow/tpu efficientnet README, NoisyStudent (JFT), 800 px"
_LITE = "tensorflow/tpu efficientnet/lite README, float"
_EDGE = "tensorflow/tpu efficientnet/edgetpu README, float"
_V2 = "google/automl efficientnetv2 README, ImageNet-1k"
_V2_21K = "google/automl efficientnetv2 README, ImageNet-21k → 1k"

_TABLES: dict[str, dict[str, float]] = {
    _V1: {"b0": 77.1, "b1": 79.1, "b2": 80.1, "b3": 81.6, "b4": 82.9, "b5": 83.6, "b6": 84.0, "b7": 84.3},
    _ADVPROP: {"b8": 85.5},
    _STUDENT: {"l2": 88.4},
    _LITE: {"lite0": 75.1, "lite1": 76.7, "lite2": 77.6, "lite3": 79.8, "lite4": 81.5},
    _EDGE: {"edge_s": 77.23, "edge_m": 78.69, "edge_l": 80.62},
    _V2: {"v2_b0": 78.7, "v2_b1": 79.8, "v2_b2": 80.5, "v2_b3": 82.1, "v2_s": 83.9, "v2_m": 85.2, "v2_l": 85.7},
    _V2_21K: {"v2_xl": 87.2},
}

# name → (top-1 in percent, where it is published)
TOP1: dict[str, tuple[float, str]] = {
    name: (top1, source) for source, table in _TABLES.items() for name, top1 in table.items()
}
