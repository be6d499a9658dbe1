"""The published networks as tables of rows, their aliases, and their published ImageNet accuracies."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from effnet.arch import serde, spec


def _make_stages(block: str, *rows: tuple[int, int, int, int, int], squeeze: float = 0.0) -> tuple[spec.Stage, ...]:
    return tuple(spec.Stage(block, *row, squeeze=squeeze) for row in rows)


# fmt: off – rows are laid out to be read beside the papers' tables
# Table 1 of arXiv:1905.11946v5             t  k  s    c  n
V1_STAGES = _make_stages(
    "mbconv",
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
    squeeze=0.25,
)

# tensorflow/tpu lite/efficientnet_lite_builder.py: V1 without squeeze-excite
LITE_STAGES = tuple(replace(stage, squeeze=0.0) for stage in V1_STAGES)

# tensorflow/tpu edgetpu/efficientnet_edgetpu_builder.py: row 1 expands its 24 outputs, not the stem's 32; no residual
EDGE_STAGES = (
    spec.Stage("fused", 4, 3, 1, 24, 1, residual=False, expand_from=24),
    *_make_stages("fused", (8, 3, 2, 32, 2), (8, 3, 2, 48, 4)),
    *_make_stages("mbconv", (8, 5, 2, 96, 5), (8, 5, 1, 144, 4), (8, 5, 2, 192, 2)),
)

# Table 4 of arXiv:2104.00298 for S; google/automl efficientnetv2/effnetv2_configs.py for the others
V2_B_STAGES = (
    *_make_stages("fused", (1, 3, 1, 16, 1), (4, 3, 2, 32, 2), (4, 3, 2, 48, 2)),
    *_make_stages("mbconv", (4, 3, 2, 96, 3), (6, 3, 1, 112, 5), (6, 3, 2, 192, 8), squeeze=0.25),
)
V2_S_STAGES = (
    *_make_stages("fused", (1, 3, 1, 24, 2), (4, 3, 2, 48, 4), (4, 3, 2, 64, 4)),
    *_make_stages("mbconv", (4, 3, 2, 128, 6), (6, 3, 1, 160, 9), (6, 3, 2, 256, 15), squeeze=0.25),
)
V2_M_STAGES = (
    *_make_stages("fused", (1, 3, 1, 24, 3), (4, 3, 2, 48, 5), (4, 3, 2, 80, 5)),
    *_make_stages("mbconv", (4, 3, 2, 160, 7), (6, 3, 1, 176, 14), (6, 3, 2, 304, 18), (6, 3, 1, 512, 5), squeeze=0.25),
)
V2_L_STAGES = (
    *_make_stages("fused", (1, 3, 1, 32, 4), (4, 3, 2, 64, 7), (4, 3, 2, 96, 7)),
    *_make_stages(
        "mbconv", (4, 3, 2, 192, 10), (6, 3, 1, 224, 19), (6, 3, 2, 384, 25), (6, 3, 1, 640, 7), squeeze=0.25
    ),
)
V2_XL_STAGES = (
    *_make_stages("fused", (1, 3, 1, 32, 4), (4, 3, 2, 64, 8), (4, 3, 2, 96, 8)),
    *_make_stages(
        "mbconv", (4, 3, 2, 192, 16), (6, 3, 1, 256, 24), (6, 3, 2, 512, 32), (6, 3, 1, 640, 8), squeeze=0.25
    ),
)

# Ours: every kind of block in three rows, for 32-pixel images; trains on digits in a minute on a laptop
NANO_STAGES = (
    *_make_stages("fused", (1, 3, 1, 16, 1), (4, 3, 2, 24, 2)),
    *_make_stages("mbconv", (4, 3, 2, 48, 3), squeeze=0.25),
)

# Width, depth, resolution and dropout of the released networks: data, since they are not exact powers of one φ.
RELEASED_ARCHS = (
    #                       width depth  px  dropout
    *(
        spec.Arch(name, V1_STAGES, w, d, r, p)
        for name, w, d, r, p in (
            ("b0", 1.0, 1.0, 224, 0.2),
            ("b1", 1.0, 1.1, 240, 0.2),
            ("b2", 1.1, 1.2, 260, 0.3),
            ("b3", 1.2, 1.4, 300, 0.3),
            ("b4", 1.4, 1.8, 380, 0.4),
            ("b5", 1.6, 2.2, 456, 0.4),
            ("b6", 1.8, 2.6, 528, 0.5),
            ("b7", 2.0, 3.1, 600, 0.5),
            ("b8", 2.2, 3.6, 672, 0.5),
            ("l2", 4.3, 5.3, 800, 0.5),  # also published at 475: the same network
        )
    ),
    *(
        spec.Arch(name, LITE_STAGES, w, d, r, p, activation="relu6", scale_ends=False)
        for name, w, d, r, p in (
            ("lite0", 1.0, 1.0, 224, 0.2),
            ("lite1", 1.0, 1.1, 240, 0.2),
            ("lite2", 1.1, 1.2, 260, 0.3),
            ("lite3", 1.2, 1.4, 280, 0.3),  # the builder's size; timm evaluates at 300
            ("lite4", 1.4, 1.8, 300, 0.3),  # the builder's size; timm evaluates at 380
        )
    ),
    *(
        spec.Arch(name, EDGE_STAGES, w, d, r, p, activation="relu")
        for name, w, d, r, p in (
            ("edge_s", 1.0, 1.0, 224, 0.2),
            ("edge_m", 1.0, 1.1, 240, 0.2),
            ("edge_l", 1.2, 1.4, 300, 0.3),
        )
    ),
    *(
        spec.Arch(name, V2_B_STAGES, w, d, r, p, round_floor=0.0)
        for name, w, d, r, p in (
            ("v2_b0", 1.0, 1.0, 224, 0.2),
            ("v2_b1", 1.0, 1.1, 240, 0.2),
            ("v2_b2", 1.1, 1.2, 260, 0.3),
            ("v2_b3", 1.2, 1.4, 300, 0.3),
        )
    ),
    spec.Arch("v2_s", V2_S_STAGES, 1.0, 1.0, 384, 0.2, stem=24),
    spec.Arch("v2_m", V2_M_STAGES, 1.0, 1.0, 480, 0.3, stem=24),
    spec.Arch("v2_l", V2_L_STAGES, 1.0, 1.0, 480, 0.4),
    spec.Arch("v2_xl", V2_XL_STAGES, 1.0, 1.0, 512, 0.4),
    spec.Arch("nano", NANO_STAGES, 1.0, 1.0, 32, 0.1, drop_path=0.05, stem=16, head=192, stem_stride=1),
)
# fmt: on

_EDGE_SIZES = {"s": "small", "m": "medium", "l": "large"}


def _spellings(name: str) -> set[str]:
    """Return ``name`` without separators, and as other libraries abbreviate it."""
    bare, size = name.replace("_", ""), name[-1]
    if not name.startswith("edge_"):
        return {bare}
    return {bare, f"e{size}", f"edgetpu{size}", f"edge{_EDGE_SIZES[size]}", f"edgetpu{_EDGE_SIZES[size]}"}


_NAME_BY_SPELLING = {spelling: arch.name for arch in RELEASED_ARCHS for spelling in _spellings(arch.name)}
# Suffixes of published weights after the architecture: b0_ns, b0.ra_in1k, v2_s_in21k, …
_WEIGHT_TAGS = re.compile(r"(_(ns|ap|aa|ra|in1k|in12k|in21k|in21ft1k|475))+$")


def canonical_name(name: str) -> str:
    """Return the key of `ARCHS` for an alias: ``efficientnet-b0``, ``EfficientNetB0``, ``tf_efficientnetv2_s``, …

    Raises ``ValueError``, which suggests the closest name, if no network has that name.
    """
    bare = _WEIGHT_TAGS.sub("", str(name).strip().lower().rpartition("/")[2].partition(".")[0])
    bare = re.sub(r"[^a-z0-9]", "", bare).removeprefix("tf")
    bare = bare.replace("efficientnet", "", 1).replace("effnet", "", 1)
    if bare not in _NAME_BY_SPELLING:
        names = ", ".join(arch.name for arch in RELEASED_ARCHS)
        hint = serde.did_you_mean(bare, list(_NAME_BY_SPELLING)) or f"; available: {names}"
        raise ValueError(f"no EfficientNet is called {name!r}{hint}")
    return _NAME_BY_SPELLING[bare]


class _ArchTable(dict[str, spec.Arch]):
    def __missing__(self, name: str) -> spec.Arch:
        try:
            return self[canonical_name(name)]
        except ValueError as error:
            raise KeyError(str(error)) from None


# Every released network by its key; aliases work too. Read-only.
ARCHS: Mapping[str, spec.Arch] = MappingProxyType(_ArchTable({arch.name: arch for arch in RELEASED_ARCHS}))


def resolve_arch(arch: str | spec.Arch) -> spec.Arch:
    """Return ``arch`` itself, the published network of that name, or the one in a JSON file.

    Raises:
        ValueError: The name is unknown, or the file does not hold an arch.
        FileNotFoundError: There is no such JSON file.
    """
    if isinstance(arch, spec.Arch):
        return arch
    return spec.Arch.from_json(Path(arch).read_text()) if arch.endswith(".json") else ARCHS[canonical_name(arch)]


# Published ImageNet top-1 in percent: quoted, never measured here. One row per table: source, then name → top-1.
#
# Lite3 and Lite4: the builder says 280 and 300 pixels, and the published multiply-adds agree; timm evaluates the same
# weights at 300 and 380 pixels with the same rounded accuracies. docs/architectures.md gives both sizes.
# fmt: off
_TOP1_BY_SOURCE: dict[str, dict[str, float]] = {
    "tensorflow/tpu efficientnet README, AutoAugment column":
        {"b0": 77.1, "b1": 79.1, "b2": 80.1, "b3": 81.6, "b4": 82.9, "b5": 83.6, "b6": 84.0, "b7": 84.3},
    "tensorflow/tpu efficientnet README, AdvProp column": {"b8": 85.5},
    "tensorflow/tpu efficientnet README, NoisyStudent (JFT), 800 px": {"l2": 88.4},
    "tensorflow/tpu efficientnet/lite README, float":
        {"lite0": 75.1, "lite1": 76.7, "lite2": 77.6, "lite3": 79.8, "lite4": 81.5},
    "tensorflow/tpu efficientnet/edgetpu README, float": {"edge_s": 77.23, "edge_m": 78.69, "edge_l": 80.62},
    "google/automl efficientnetv2 README, ImageNet-1k":
        {"v2_b0": 78.7, "v2_b1": 79.8, "v2_b2": 80.5, "v2_b3": 82.1, "v2_s": 83.9, "v2_m": 85.2, "v2_l": 85.7},
    "google/automl efficientnetv2 README, ImageNet-21k → 1k": {"v2_xl": 87.2},
}
# fmt: on

# Name → (top-1 in percent, source)
PUBLISHED_TOP1: dict[str, tuple[float, str]] = {
    name: (top1, source) for source, table in _TOP1_BY_SOURCE.items() for name, top1 in table.items()
}
