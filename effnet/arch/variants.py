"""The published networks and their relatives as tables of rows, their aliases, and their published accuracies."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from effnet.arch import outsiders, rounding_rules, serde, spec


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

# Table 2 of arXiv:1801.04381
MOBILENETV2_STAGES = _make_stages(
    "mbconv",
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 3, 2, 32, 3),
    (6, 3, 2, 64, 4),
    (6, 3, 1, 96, 3),
    (6, 3, 2, 160, 3),
    (6, 3, 1, 320, 1),
)

# MnasNet-B1 and -A1 of arXiv:1807.11626 as in tensorflow/tpu mnasnet/mnasnet_models.py, where ends are not residual
MNASNET_STAGES = (
    spec.Stage("mbconv", 1, 3, 1, 16, 1, residual=False),
    *_make_stages("mbconv", (3, 3, 2, 24, 3), (3, 5, 2, 40, 3), (6, 5, 2, 80, 3), (6, 3, 1, 96, 2), (6, 5, 2, 192, 4)),
    spec.Stage("mbconv", 6, 3, 1, 320, 1, residual=False),
)
SEMNASNET_STAGES = (
    spec.Stage("mbconv", 1, 3, 1, 16, 1, residual=False),
    spec.Stage("mbconv", 6, 3, 2, 24, 2),
    spec.Stage("mbconv", 3, 5, 2, 40, 3, squeeze=0.25),
    spec.Stage("mbconv", 6, 3, 2, 80, 4),
    *_make_stages("mbconv", (6, 3, 1, 112, 2), (6, 5, 2, 160, 3), squeeze=0.25),
    spec.Stage("mbconv", 6, 3, 1, 320, 1),
)
MNASNET_SMALL_STAGES = (
    *_make_stages("mbconv", (1, 3, 1, 8, 1), (3, 3, 2, 16, 1), (6, 3, 2, 16, 2)),
    *_make_stages("mbconv", (6, 5, 2, 32, 4), (6, 3, 1, 32, 3), (6, 5, 2, 88, 3), squeeze=0.25),
    spec.Stage("mbconv", 6, 3, 1, 144, 1),
)

# timm models/efficientnet.py, made before V2's code was public: the first row has projections, the last is wider
V2_RW_STAGES = (
    spec.Stage("fused", 1, 3, 1, 24, 2, expand_from=24),
    *V2_S_STAGES[1:5],
    replace(V2_S_STAGES[5], channels=272),
)
TEST_EFFICIENTNET_STAGES = (
    *_make_stages("fused", (1, 3, 1, 16, 1), (4, 3, 2, 24, 1), (4, 3, 2, 32, 1)),
    *_make_stages("mbconv", (4, 3, 2, 48, 1), (4, 3, 2, 64, 1), squeeze=0.25),
)

# Pruned by arXiv:2002.08258: channels, inner channels and squeeze-excite channels of each row (timm models/_pruned)
PRUNED_ROWS = {
    "b1": (
        (16, (), ()),
        (12, (48, 62, 48), (4, 6, 6)),
        (35, (70, 61, 51), (6, 10, 10)),
        (74, (175, 188, 137, 164), (10, 20, 20, 20)),
        (67, (399, 201, 160, 213), (20, 28, 28, 28)),
        (192, (637, 806, 798, 891, 990), (27, 48, 48, 48, 48)),
        (320, (1152, 1912), (48, 80)),
    ),
    "b2": (
        (16, (), ()),
        (17, (54, 69, 61), (4, 6, 6)),
        (42, (86, 72, 98), (6, 12, 12)),
        (85, (245, 274, 254, 292), (12, 22, 22, 22)),
        (116, (502, 315, 354, 443), (22, 30, 30, 30)),
        (208, (719, 1148, 1160, 1182, 1228), (30, 52, 52, 52, 52)),
        (352, (1248, 2112), (52, 88)),
    ),
    "b3": (
        (24, (), ()),
        (12, (27, 49, 48), (6, 8, 8)),
        (40, (83, 90, 85), (8, 12, 12)),
        (93, (215, 261, 219, 254, 236), (12, 24, 24, 24, 24)),
        (120, (480, 235, 217, 226, 340), (24, 34, 34, 33, 34)),
        (232, (802, 1030, 924, 1016, 1130, 1266), (34, 58, 58, 58, 58, 58)),
        (384, (1392, 2301), (58, 96)),
    ),
}

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


def _with_depths(stages: tuple[spec.Stage, ...], *depths: int) -> tuple[spec.Stage, ...]:
    return tuple(stage.with_layers(depth) for stage, depth in zip(stages, depths, strict=True))


def _prune(base: spec.Arch) -> spec.Arch:
    """Return the pruned ``base``: its rows list the channels of every block, so that nothing is rounded."""
    rows = zip(base.stages, rounding_rules.stage_depths(base), PRUNED_ROWS[base.name], strict=True)
    return replace(
        base,
        name=f"{base.name}_pruned",
        stages=tuple(
            replace(stage, channels=channels, layers=depth, expanded=expanded, squeezed=squeezed)
            for stage, depth, (channels, expanded, squeezed) in rows
        ),
        width=1.0,
        depth=1.0,
        divisor=1,
        stem=base.scale_channels(base.stem),
        head=base.scale_channels(base.head),
    )


# Networks of others whose blocks are MBConv, as timm has them. They round and scale by rules of their own: stems, heads
# and depths are stated here as built, at the size at which timm tests the weights.
RELATED_ARCHS = (
    spec.Arch("v2_rw_t", V2_S_STAGES, 0.8, 0.9, 288, 0.2, stem=24),
    spec.Arch("v2_rw_s", V2_RW_STAGES, 1.0, 1.0, 384, 0.2, stem=24, head=1792),
    spec.Arch("v2_rw_m", _with_depths(V2_RW_STAGES, 3, 5, 5, 8, 15, 24), 1.2, 1.0, 416, 0.2, stem=24, head=1792),
    *(
        spec.Arch(f"tinynet_{size}", _with_depths(V1_STAGES, *depths), width, 1.0, px, 0.2, scale_ends=False)
        for size, width, depths, px in (  # arXiv:2010.14819; depths are rounded to the nearest
            ("a", 1.0, (1, 2, 2, 4, 4, 5, 1), 192),
            ("b", 0.75, (1, 2, 2, 3, 3, 4, 1), 188),
            ("c", 0.54, (1, 2, 2, 3, 3, 3, 1), 184),
            ("d", 0.54, (1, 1, 1, 2, 2, 3, 1), 152),
            ("e", 0.51, (1, 1, 1, 2, 2, 2, 1), 106),
        )
    ),
    *(
        spec.Arch(f"mobilenetv2_{name}", MOBILENETV2_STAGES, w, d, 224, 0.2, 0.2, stem, head, "relu6", scale_ends=False)
        for name, w, d, stem, head in (
            ("035", 0.35, 1.0, 16, 1280),
            ("050", 0.5, 1.0, 16, 1280),
            ("075", 0.75, 1.0, 24, 1280),
            ("100", 1.0, 1.0, 32, 1280),
            ("110d", 1.1, 1.2, 32, 1280),
            ("120d", 1.2, 1.4, 32, 1280),
            ("140", 1.4, 1.0, 48, 1792),
        )
    ),
    *(
        spec.Arch(f"{name}_{size}", rows, width, 1.0, 224, 0.2, stem=stem, activation="relu", scale_ends=False)
        for name, rows in (("mnasnet", MNASNET_STAGES), ("semnasnet", SEMNASNET_STAGES))
        for size, width, stem in (("050", 0.5, 16), ("075", 0.75, 24), ("100", 1.0, 32), ("140", 1.4, 48))
    ),
    spec.Arch("mnasnet_small", MNASNET_SMALL_STAGES, 1.0, 1.0, 224, 0.2, stem=8, activation="relu"),
    *(_prune(arch) for arch in RELEASED_ARCHS if arch.name in PRUNED_ROWS),
    spec.Arch("test_efficientnet", TEST_EFFICIENTNET_STAGES, 1.0, 1.0, 160, 0.2, stem=24, head=256, round_floor=0.0),
)
# fmt: on

_EDGE_SIZES = {"s": "small", "m": "medium", "l": "large"}
_FORMER_NAMES = {"semnasnet_100": {"mnasneta1"}, "mnasnet_100": {"mnasnetb1"}}  # timm's


def _spellings(name: str) -> set[str]:
    """Return ``name`` without separators, and as other libraries abbreviate it."""
    bare, size = name.replace("_", ""), name[-1]
    if not name.startswith("edge_"):
        return {bare} | _FORMER_NAMES.get(name, set())
    pruned = {f"e{size}pruned"}  # single weights are zero: the network is the same
    return {bare, f"e{size}", f"edgetpu{size}", f"edge{_EDGE_SIZES[size]}", f"edgetpu{_EDGE_SIZES[size]}"} | pruned


_ALL_ARCHS = (*RELEASED_ARCHS, *RELATED_ARCHS)
_NAME_BY_SPELLING = {spelling: arch.name for arch in _ALL_ARCHS for spelling in _spellings(arch.name)}
# Suffixes of published weights after the architecture: b0_ns, b0.ra_in1k, v2_s_in21k, …
_WEIGHT_TAGS = re.compile(r"(_(ns|ap|aa|ra|in1k|in12k|in21k|in21ft1k|475))+$")


def canonical_name(name: str) -> str:
    """Return the key of `ARCHS` for an alias: ``efficientnet-b0``, ``EfficientNetB0``, ``tf_efficientnetv2_s``, …

    Raises ``ValueError`` if no network has that name: with the closest one, or with what is unlike the family in one of
    timm's that is near it.
    """
    untagged = _WEIGHT_TAGS.sub("", str(name).strip().lower().rpartition("/")[2].partition(".")[0])
    bare = re.sub(r"[^a-z0-9]", "", untagged).removeprefix("tf")
    if bare in _NAME_BY_SPELLING:  # test_efficientnet
        return _NAME_BY_SPELLING[bare]
    bare = bare.replace("efficientnet", "", 1).replace("effnet", "", 1)
    if bare not in _NAME_BY_SPELLING:
        if outsider := outsiders.explain_outside(untagged):
            raise ValueError(outsider)
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


# Every released network and relative by its key; aliases work too. Read-only.
ARCHS: Mapping[str, spec.Arch] = MappingProxyType(_ArchTable({arch.name: arch for arch in _ALL_ARCHS}))


def resolve_arch(arch: str | spec.Arch) -> spec.Arch:
    """Return ``arch`` itself, the published network of that name, or the one in a JSON file.

    Raises:
        ValueError: The name is unknown, or the file does not hold an arch.
        FileNotFoundError: There is no such JSON file.
    """
    if isinstance(arch, spec.Arch):
        return arch
    return (
        serde.read_json_object(Path(arch), spec.Arch.from_dict)
        if arch.endswith(".json")
        else ARCHS[canonical_name(arch)]
    )


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
    "pytorch-image-models results/results-imagenet.csv, timm's default weights": {
        "v2_rw_t": 82.350, "v2_rw_s": 83.808, "v2_rw_m": 84.812,
        "tinynet_a": 77.658, "tinynet_b": 74.978, "tinynet_c": 71.240, "tinynet_d": 66.974, "tinynet_e": 59.866,
        "mobilenetv2_050": 65.950, "mobilenetv2_100": 72.976, "mobilenetv2_110d": 75.056, "mobilenetv2_120d": 77.302,
        "mobilenetv2_140": 76.520, "mnasnet_100": 74.650, "mnasnet_small": 66.196, "semnasnet_075": 72.992,
        "semnasnet_100": 75.450, "b1_pruned": 78.242, "b2_pruned": 79.920, "b3_pruned": 80.852,
    },
}
# fmt: on

# Name → (top-1 in percent, source)
PUBLISHED_TOP1: dict[str, tuple[float, str]] = {
    name: (top1, source) for source, table in _TOP1_BY_SOURCE.items() for name, top1 in table.items()
}
