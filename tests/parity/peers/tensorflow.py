"""TensorFlow's official networks, reimplemented from their block strings, since their code cannot be installed.

Nothing is taken from effnet's tables: rows, widths and depths are those of tensorflow/tpu (``efficientnet_builder.py``,
``lite/efficientnet_lite_builder.py``, ``edgetpu/efficientnet_edgetpu_builder.py``, ``efficientnet_model.py``) and
google/automl (``efficientnetv2/effnetv2_configs.py``, ``effnetv2_model.py``). Variables are named as by TensorFlow,
which counts layers of one kind within a scope; checkpoints are written and read by TensorFlow, with the moving averages
and RMSProp slots of training.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from tests.parity import timm_comparison
from tests.quiet_tensorflow import tensorflow

V1 = (
    "r1_k3_s1_e1_i32_o16_se0.25 r2_k3_s2_e6_i16_o24_se0.25 r2_k5_s2_e6_i24_o40_se0.25 r3_k3_s2_e6_i40_o80_se0.25 "
    "r3_k5_s1_e6_i80_o112_se0.25 r4_k5_s2_e6_i112_o192_se0.25 r1_k3_s1_e6_i192_o320_se0.25"
)
EDGE = (
    "r1_k3_s1_e4_i24_o24_c1_noskip r2_k3_s2_e8_i24_o32_c1 r4_k3_s2_e8_i32_o48_c1 "
    "r5_k5_s2_e8_i48_o96 r4_k5_s1_e8_i96_o144 r2_k5_s2_e8_i144_o192"
)
V2_B = (
    "r1_k3_s1_e1_i32_o16_c1 r2_k3_s2_e4_i16_o32_c1 r2_k3_s2_e4_i32_o48_c1 "
    "r3_k3_s2_e4_i48_o96_se0.25 r5_k3_s1_e6_i96_o112_se0.25 r8_k3_s2_e6_i112_o192_se0.25"
)
V2_S = (
    "r2_k3_s1_e1_i24_o24_c1 r4_k3_s2_e4_i24_o48_c1 r4_k3_s2_e4_i48_o64_c1 "
    "r6_k3_s2_e4_i64_o128_se0.25 r9_k3_s1_e6_i128_o160_se0.25 r15_k3_s2_e6_i160_o256_se0.25"
)
V2_M = (
    "r3_k3_s1_e1_i24_o24_c1 r5_k3_s2_e4_i24_o48_c1 r5_k3_s2_e4_i48_o80_c1 r7_k3_s2_e4_i80_o160_se0.25 "
    "r14_k3_s1_e6_i160_o176_se0.25 r18_k3_s2_e6_i176_o304_se0.25 r5_k3_s1_e6_i304_o512_se0.25"
)
V2_L = (
    "r4_k3_s1_e1_i32_o32_c1 r7_k3_s2_e4_i32_o64_c1 r7_k3_s2_e4_i64_o96_c1 r10_k3_s2_e4_i96_o192_se0.25 "
    "r19_k3_s1_e6_i192_o224_se0.25 r25_k3_s2_e6_i224_o384_se0.25 r7_k3_s1_e6_i384_o640_se0.25"
)
V2_XL = (
    "r4_k3_s1_e1_i32_o32_c1 r8_k3_s2_e4_i32_o64_c1 r8_k3_s2_e4_i64_o96_c1 r16_k3_s2_e4_i96_o192_se0.25 "
    "r24_k3_s1_e6_i192_o256_se0.25 r32_k3_s2_e6_i256_o512_se0.25 r8_k3_s1_e6_i512_o640_se0.25"
)


@dataclass(frozen=True)
class Official:
    """Arguments of the official builder."""

    scope: str
    blocks: str
    width: float
    depth: float
    side: int  # pixels
    activation: str = "silu"
    classes: int = 1000

    @property
    def lite(self) -> bool:
        """Whether it has no squeeze-excite, and unscaled stem, head and depth of the first and last row."""
        return "lite" in self.scope

    @property
    def is_v2(self) -> bool:
        """Whether it is from google/automl, where rounding may remove more than 10 % of the channels."""
        return "v2" in self.scope


# fmt: off
OFFICIAL = {
    "b0": Official("efficientnet-b0", V1, 1.0, 1.0, 224),
    "b1": Official("efficientnet-b1", V1, 1.0, 1.1, 240),
    "b2": Official("efficientnet-b2", V1, 1.1, 1.2, 260),
    "b3": Official("efficientnet-b3", V1, 1.2, 1.4, 300),
    "b4": Official("efficientnet-b4", V1, 1.4, 1.8, 380),
    "b5": Official("efficientnet-b5", V1, 1.6, 2.2, 456),
    "b6": Official("efficientnet-b6", V1, 1.8, 2.6, 528),
    "b7": Official("efficientnet-b7", V1, 2.0, 3.1, 600),
    "b8": Official("efficientnet-b8", V1, 2.2, 3.6, 672),
    "l2": Official("efficientnet-l2", V1, 4.3, 5.3, 800),
    "lite0": Official("efficientnet-lite0", V1, 1.0, 1.0, 224, "relu6"),
    "lite1": Official("efficientnet-lite1", V1, 1.0, 1.1, 240, "relu6"),
    "lite2": Official("efficientnet-lite2", V1, 1.1, 1.2, 260, "relu6"),
    "lite3": Official("efficientnet-lite3", V1, 1.2, 1.4, 280, "relu6"),
    "lite4": Official("efficientnet-lite4", V1, 1.4, 1.8, 300, "relu6"),
    "edge_s": Official("efficientnet-edgetpu-S", EDGE, 1.0, 1.0, 224, "relu", 1001),
    "edge_m": Official("efficientnet-edgetpu-M", EDGE, 1.0, 1.1, 240, "relu", 1001),
    "edge_l": Official("efficientnet-edgetpu-L", EDGE, 1.2, 1.4, 300, "relu", 1001),
    "v2_b0": Official("efficientnetv2-b0", V2_B, 1.0, 1.0, 224),
    "v2_b1": Official("efficientnetv2-b1", V2_B, 1.0, 1.1, 240),
    "v2_b2": Official("efficientnetv2-b2", V2_B, 1.1, 1.2, 260),
    "v2_b3": Official("efficientnetv2-b3", V2_B, 1.2, 1.4, 300),
    "v2_s": Official("efficientnetv2-s", V2_S, 1.0, 1.0, 384),
    "v2_m": Official("efficientnetv2-m", V2_M, 1.0, 1.0, 480),
    "v2_l": Official("efficientnetv2-l", V2_L, 1.0, 1.0, 480),
    "v2_xl": Official("efficientnetv2-xl", V2_XL, 1.0, 1.0, 512),
}
# fmt: on

VARIANTS = tuple(OFFICIAL)
SUFFIXES = (".ckpt.index",)
FLOAT64 = True
LIMIT = 1e-8
GIANTS = {"l2": 128, "v2_xl": 192}  # compared at fewer pixels than their own

Variable = Callable[[str, tuple[int, ...]], Any]  # (name below the scope, shape) -> a tensor


@dataclass
class Network:
    """float32 values by variable; names are relative to the scope."""

    name: str
    values: dict[str, numpy.ndarray]


class Forward:
    """Forward pass; ``variable`` returns the variables, and ``on_batch_norm`` first receives a batch norm's input."""

    def __init__(
        self, official: Official, variable: Variable, on_batch_norm: Callable[[str, Any], None] | None = None
    ) -> None:
        self.tf, self.official, self.variable, self.on_batch_norm = tensorflow(), official, variable, on_batch_norm
        self.layer_counts: Counter[str] = Counter()
        tf = self.tf
        self.activate = {"silu": lambda x: x * tf.sigmoid(x), "relu": tf.nn.relu, "relu6": tf.nn.relu6}[
            official.activation
        ]

    def layer_name(self, scope: str, layer: str) -> str:
        """Return the layer's name: the second of its kind within a scope gets "_1"."""
        name = f"{scope}/{layer}"
        self.layer_counts[name] += 1
        return name if self.layer_counts[name] == 1 else f"{name}_{self.layer_counts[name] - 1}"

    def conv(self, x: Any, scope: str, channels: int, kernel: int, stride: int, bias: bool = False) -> Any:
        name = self.layer_name(scope, "conv2d")
        out = self.tf.nn.conv2d(
            x, self.variable(f"{name}/kernel", (kernel, kernel, x.shape[3], channels)), stride, "SAME"
        )
        return out + self.variable(f"{name}/bias", (channels,)) if bias else out

    def depthwise(self, x: Any, scope: str, kernel: int, stride: int) -> Any:
        name = f"{self.layer_name(scope, 'depthwise_conv2d')}/depthwise_kernel"
        weight = self.variable(name, (kernel, kernel, x.shape[3], 1))
        return self.tf.nn.depthwise_conv2d(x, weight, (1, stride, stride, 1), "SAME")

    def batch_norm(self, x: Any, scope: str) -> Any:
        name = self.layer_name(scope, "tpu_batch_normalization")
        if self.on_batch_norm:
            self.on_batch_norm(name, x)
        parts = ("moving_mean", "moving_variance", "beta", "gamma")
        values = [self.variable(f"{name}/{part}", (x.shape[3],)) for part in parts]
        return self.tf.nn.batch_normalization(x, *values, 1e-3)

    def squeeze_excite(self, x: Any, scope: str, channels: int) -> Any:
        mean = self.tf.reduce_mean(x, (1, 2), keepdims=True)
        inner = self.activate(self.conv(mean, f"{scope}/se", channels, 1, 1, bias=True))
        return x * self.tf.sigmoid(self.conv(inner, f"{scope}/se", x.shape[3], 1, 1, bias=True))

    def block(self, x: Any, scope: str, inputs: int, channels: int, stride: int, options: dict[str, str]) -> Any:
        kernel, expand, squeeze = int(options["k"]), int(options["e"]), float(options.get("se", 0))
        inner, before = inputs * expand, x
        if "c" not in options:
            if expand > 1:
                x = self.activate(self.batch_norm(self.conv(x, scope, inner, 1, 1), scope))
            x = self.activate(self.batch_norm(self.depthwise(x, scope, kernel, stride), scope))
            if squeeze and not self.official.lite:
                x = self.squeeze_excite(x, scope, max(1, int(inputs * squeeze)))
            x = self.batch_norm(self.conv(x, scope, channels, 1, 1), scope)
        elif not self.official.is_v2:  # EdgeTPU's: the stride is in the projection
            x = self.activate(self.batch_norm(self.conv(x, scope, inner, kernel, 1), scope))
            x = self.batch_norm(self.conv(x, scope, channels, 1, stride), scope)
        elif expand > 1:
            x = self.activate(self.batch_norm(self.conv(x, scope, inner, kernel, stride), scope))
            x = self.batch_norm(self.conv(x, scope, channels, 1, 1), scope)
        else:
            x = self.activate(self.batch_norm(self.conv(x, scope, channels, kernel, stride), scope))
        skip = "noskip" not in options and stride == 1 and before.shape[3] == channels
        return x + before if skip else x

    def __call__(self, x: Any) -> Any:
        """(N, H, W, 3) -> (N, classes)."""
        official, rows = self.official, self.official.blocks.split()
        first = int(re.findall(r"_i(\d+)", rows[0])[0]) if official.is_v2 else 32
        stem, head = (size if official.lite else self.round_channels(size) for size in (first, 1280))
        x = self.activate(self.batch_norm(self.conv(x, "stem", stem, 3, 2), "stem"))
        count = 0
        for row, text in enumerate(rows):
            options = dict(re.findall(r"(?:^|_)([a-z]+)([\d.]*)", text))
            inputs, channels = self.round_channels(int(options["i"])), self.round_channels(int(options["o"]))
            layers = int(options["r"])
            if not (official.lite and row in (0, len(rows) - 1)):
                layers = ceil(layers * official.depth)
            for layer in range(layers):
                stride = int(options["s"]) if layer == 0 else 1
                x = self.block(x, f"blocks_{count}", inputs, channels, stride, options)
                inputs, count = channels, count + 1
        x = self.activate(self.batch_norm(self.conv(x, "head", head, 1, 1), "head"))
        x = self.tf.reduce_mean(x, (1, 2))
        weight = self.variable("head/dense/kernel", (head, official.classes))
        return x @ weight + self.variable("head/dense/bias", (official.classes,))

    def round_channels(self, channels: int) -> int:
        """Scale to the network's width and round to a multiple of eight."""
        scaled = channels * self.official.width
        rounded = max(8, int(scaled + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * scaled and not self.official.is_v2 else rounded


def build(name: str) -> Network:
    official, values, rng = OFFICIAL[name], dict[str, numpy.ndarray](), numpy.random.default_rng(0)
    tf = tensorflow()

    def draw(part: str, shape: tuple[int, ...]) -> numpy.ndarray:
        match part.rpartition("/")[2]:
            case "gamma":
                return rng.uniform(0.4, 1.0, shape)
            case "beta" | "bias":
                return rng.normal(0, 0.1, shape)
            case _ if part == "head/dense/kernel":
                return rng.uniform(-1, 1, shape) / shape[1] ** 0.5
        fan = shape[0] * shape[1] * shape[3]  # of kernels; the last dimension of depthwise ones is 1
        return rng.standard_normal(shape, numpy.float32) * (2 / fan) ** 0.5

    def variable(part: str, shape: tuple[int, ...]) -> Any:
        if part not in values:
            values[part] = draw(part, shape).astype(numpy.float32)
        assert values[part].shape == shape
        return tf.constant(values[part])

    def measure_statistics(scope: str, x: Any) -> None:
        mean, variance = (value.numpy() for value in tf.nn.moments(x, (0, 1, 2)))
        mean = mean + 0.1 * variance**0.5 * rng.standard_normal(mean.shape)
        values[f"{scope}/moving_mean"] = mean.astype(numpy.float32)
        values[f"{scope}/moving_variance"] = (variance * rng.uniform(0.8, 1.25, mean.shape)).astype(numpy.float32)

    side = min(192, sizes(name)[0][0])  # near the compared sizes: statistics of deep networks do not hold at others
    Forward(official, variable, measure_statistics)(
        tf.constant(_nhwc(timm_comparison.random_images(8, (side, side))), tf.float32)
    )
    return Network(name, values)


def predict(network: Network, x: Tensor) -> Tensor:
    tf = tensorflow()
    logits = Forward(OFFICIAL[network.name], lambda part, _: tf.constant(network.values[part], tf.float64))(
        tf.constant(_nhwc(x), tf.float64)
    )
    return torch.from_numpy(logits.numpy())


def write(network: Network, path: Path) -> None:
    """Write a checkpoint of training: the network consists of the averages, not of the variables themselves."""
    tf, rng = tensorflow(), numpy.random.default_rng(1)
    variables: dict[str, Any] = {"global_step": numpy.int64(218949)}
    for part, value in network.values.items():
        name = f"{OFFICIAL[network.name].scope}/{part}"
        variables[name], variables[f"{name}/ExponentialMovingAverage"] = value + numpy.float32(rng.normal()), value
        if value.ndim == 1 and "moving" not in part:  # omitted for kernels, to save space
            variables |= {f"{name}/RMSProp": value + 1, f"{name}/RMSProp_1": value - 1}
    tf.raw_ops.SaveV2(
        prefix=_prefix(path),
        tensor_names=list(variables),
        shape_and_slices=[""] * len(variables),
        tensors=list(variables.values()),
    )


def read(name: str, path: Path) -> Network:
    tf, official, values = tensorflow(), OFFICIAL[name], dict[str, numpy.ndarray]()
    reader = tf.train.load_checkpoint(_prefix(path))

    def restore(part: str, shape: tuple[int, ...]) -> Any:
        values[part] = reader.get_tensor(f"{official.scope}/{part}")
        assert values[part].shape == shape, part
        return tf.constant(values[part])

    Forward(official, restore)(tf.zeros((1, 32, 32, 3)))
    stored = set(reader.get_variable_to_shape_map())
    assert stored == {f"{official.scope}/{part}" for part in values}, (
        "the checkpoint has more than the network's variables"
    )
    return Network(name, values)


def sizes(name: str) -> tuple[tuple[int, int], ...]:
    side = GIANTS.get(name, OFFICIAL[name].side)
    return (side, side), (197, 251)


def _prefix(path: Path) -> str:
    return str(path.with_suffix(""))


def _nhwc(x: Tensor) -> numpy.ndarray:
    return x.permute(0, 2, 3, 1).numpy()
