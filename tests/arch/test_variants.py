"""The published variants: sizes, names and aliases."""

from __future__ import annotations

import subprocess
import sys

import pytest

from effnet.arch import ARCHS, PUBLISHED_TOP1, Arch, canonical_name, layers, resolve_arch
from effnet.arch.rounding_rules import stage_depths
from effnet.arch.variants import RELATED_ARCHS, RELEASED_ARCHS

NAMES = (
    *(f"b{i}" for i in range(9)),
    "l2",
    *(f"lite{i}" for i in range(5)),
    *("edge_s", "edge_m", "edge_l"),
    *(f"v2_b{i}" for i in range(4)),
    *("v2_s", "v2_m", "v2_l", "v2_xl"),
    "nano",
    *("v2_rw_t", "v2_rw_s", "v2_rw_m"),
    *(f"tinynet_{size}" for size in "abcde"),
    *(f"mobilenetv2_{size}" for size in ("035", "050", "075", "100", "110d", "120d", "140")),
    *(f"{name}_{size}" for name in ("mnasnet", "semnasnet") for size in ("050", "075", "100", "140")),
    "mnasnet_small",
    *("b1_pruned", "b2_pruned", "b3_pruned"),
    "test_efficientnet",
)

# name: stem, channels, layers, head. Computed once by an implementation of its own from the official builders' rules.
SIZES = {
    "b0": (32, "16 24 40 80 112 192 320", "1 2 2 3 3 4 1", 1280),
    "b1": (32, "16 24 40 80 112 192 320", "2 3 3 4 4 5 2", 1280),
    "b2": (32, "16 24 48 88 120 208 352", "2 3 3 4 4 5 2", 1408),
    "b3": (40, "24 32 48 96 136 232 384", "2 3 3 5 5 6 2", 1536),
    "b4": (48, "24 32 56 112 160 272 448", "2 4 4 6 6 8 2", 1792),
    "b5": (48, "24 40 64 128 176 304 512", "3 5 5 7 7 9 3", 2048),
    "b6": (56, "32 40 72 144 200 344 576", "3 6 6 8 8 11 3", 2304),
    "b7": (64, "32 48 80 160 224 384 640", "4 7 7 10 10 13 4", 2560),
    "b8": (72, "32 56 88 176 248 424 704", "4 8 8 11 11 15 4", 2816),
    "l2": (136, "72 104 176 344 480 824 1376", "6 11 11 16 16 22 6", 5504),
    "lite0": (32, "16 24 40 80 112 192 320", "1 2 2 3 3 4 1", 1280),
    "lite1": (32, "16 24 40 80 112 192 320", "1 3 3 4 4 5 1", 1280),
    "lite2": (32, "16 24 48 88 120 208 352", "1 3 3 4 4 5 1", 1280),
    "lite3": (32, "24 32 48 96 136 232 384", "1 3 3 5 5 6 1", 1280),
    "lite4": (32, "24 32 56 112 160 272 448", "1 4 4 6 6 8 1", 1280),
    "edge_s": (32, "24 32 48 96 144 192", "1 2 4 5 4 2", 1280),
    "edge_m": (32, "24 32 48 96 144 192", "2 3 5 6 5 3", 1280),
    "edge_l": (40, "32 40 56 112 176 232", "2 3 6 7 6 3", 1536),
    "v2_b0": (32, "16 32 48 96 112 192", "1 2 2 3 5 8", 1280),
    "v2_b1": (32, "16 32 48 96 112 192", "2 3 3 4 6 9", 1280),
    "v2_b2": (32, "16 32 56 104 120 208", "2 3 3 4 6 10", 1408),
    "v2_b3": (40, "16 40 56 112 136 232", "2 3 3 5 7 12", 1536),
    "v2_s": (24, "24 48 64 128 160 256", "2 4 4 6 9 15", 1280),
    "v2_m": (24, "24 48 80 160 176 304 512", "3 5 5 7 14 18 5", 1280),
    "v2_l": (32, "32 64 96 192 224 384 640", "4 7 7 10 19 25 7", 1280),
    "v2_xl": (32, "32 64 96 192 256 512 640", "4 8 8 16 24 32 8", 1280),
}

# name: pixels, dropout. tensorflow/tpu and google/automl builders.
RELEASED = {
    "b0": (224, 0.2),
    "b1": (240, 0.2),
    "b2": (260, 0.3),
    "b3": (300, 0.3),
    "b4": (380, 0.4),
    "b5": (456, 0.4),
    "b6": (528, 0.5),
    "b7": (600, 0.5),
    "b8": (672, 0.5),
    "l2": (800, 0.5),
    "lite0": (224, 0.2),
    "lite1": (240, 0.2),
    "lite2": (260, 0.3),
    "lite3": (280, 0.3),
    "lite4": (300, 0.3),
    "edge_s": (224, 0.2),
    "edge_m": (240, 0.2),
    "edge_l": (300, 0.3),
    "v2_b0": (224, 0.2),
    "v2_b1": (240, 0.2),
    "v2_b2": (260, 0.3),
    "v2_b3": (300, 0.3),
    "v2_s": (384, 0.2),
    "v2_m": (480, 0.3),
    "v2_l": (480, 0.4),
    "v2_xl": (512, 0.4),
}


def test_names() -> None:
    assert tuple(ARCHS) == NAMES
    assert [arch.name for arch in ARCHS.values()] == list(NAMES)
    assert len(set(ARCHS.values())) == len(NAMES)


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name: str) -> None:
    stem, channels, repeats, head = SIZES[name]
    arch = ARCHS[name]
    walk = list(layers(arch))
    assert walk[0].channels == stem
    assert [next(layer.channels for layer in walk if layer.stage == stage) for stage in blocks(arch)] == list(
        map(int, channels.split())
    )
    assert stage_depths(arch) == tuple(map(int, repeats.split()))
    assert walk[-1].inputs == head


def blocks(arch: Arch) -> range:
    return range(1, len(arch.stages) + 1)


@pytest.mark.parametrize("name", RELEASED)
def test_released_settings(name: str) -> None:
    assert (ARCHS[name].resolution, ARCHS[name].dropout) == RELEASED[name]
    assert ARCHS[name].drop_path == 0.2  # survival .8 for all sizes: arXiv:1905.11946v5, section 5.2


def test_what_no_count_can_see() -> None:
    activations = {arch.name: arch.activation for arch in RELEASED_ARCHS}
    assert {name for name, act in activations.items() if act == "relu6"} == {f"lite{i}" for i in range(5)}
    assert {name for name, act in activations.items() if act == "relu"} == {"edge_s", "edge_m", "edge_l"}
    unskipped = {arch.name for arch in RELEASED_ARCHS for row in arch.stages if not row.residual}
    assert unskipped == {"edge_s", "edge_m", "edge_l"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["{}", "efficientnet-{}", "efficientnet_{}", "tf_efficientnet_{}", "EfficientNet{}"])
def test_every_name_is_understood_as_people_write_it(form: str, name: str) -> None:
    assert canonical_name(form.format(name)) == name
    assert canonical_name(form.format(name).upper()) == name
    assert ARCHS[form.format(name)] is ARCHS[name]


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("EfficientNetB0", "b0"),
        ("EfficientNetV2B3", "v2_b3"),
        ("EfficientNetV2S", "v2_s"),
        ("efficientnetv2-xl", "v2_xl"),
        ("tf_efficientnetv2_s", "v2_s"),
        ("tf_efficientnetv2_s_in21ft1k", "v2_s"),
        ("efficientnet_v2_m", "v2_m"),
        ("efficientnet-edgetpu-S", "edge_s"),
        ("tf_efficientnet_es", "edge_s"),
        ("efficientnet_el", "edge_l"),
        ("tf_efficientnet_lite4", "lite4"),
        ("tf_efficientnet_b7.ns_jft_in1k", "b7"),
        ("timm/efficientnet_b0.ra_in1k", "b0"),
        ("tf_efficientnet_b0_ns", "b0"),
        ("tf_efficientnet_l2_ns_475", "l2"),
        ("tf_efficientnet_l2.ns_jft_in1k_475", "l2"),
        (" b3 ", "b3"),
        ("b0.aa", "b0"),
        ("efficientnetv2_rw_t.ra2_in1k", "v2_rw_t"),
        ("efficientnet_b1_pruned", "b1_pruned"),
        ("efficientnet_es_pruned.in1k", "edge_s"),  # single weights are zero: the same network
        ("efficientnet_el_pruned", "edge_l"),
        ("timm/mobilenetv2_110d.ra_in1k", "mobilenetv2_110d"),
        ("mnasnet_b1", "mnasnet_100"),  # timm's former names
        ("mnasnet_a1", "semnasnet_100"),
        ("test_efficientnet.r160_in1k", "test_efficientnet"),
    ],
)
def test_aliases(spelling: str, name: str) -> None:
    assert canonical_name(spelling) == name


@pytest.mark.parametrize("name", ["b9", "resnet50", "", "efficientnet", "b0 b1", "test", None, 3])
def test_other_names_are_refused(name: object) -> None:
    with pytest.raises(ValueError, match="no EfficientNet is called"):
        canonical_name(name)  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="no EfficientNet is called"):
        ARCHS[name]  # type: ignore[index]


def test_the_nearest_name_is_offered() -> None:
    with pytest.raises(ValueError, match="did you mean b8"):
        canonical_name("efficientnet_b9")


def test_a_long_wrong_name_is_refused_at_once() -> None:
    code = "from effnet.arch import canonical_name; canonical_name('.' * 60 + chr(10) + 'x')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert "ValueError: no EfficientNet is called" in done.stderr


@pytest.mark.parametrize(
    "name", ["efficientnet_b0_gn", "timm/efficientnet_b3_g8_gn.in1k", "EfficientNet-Blur-B0", "tf_mixnet_s.in1k"]
)
def test_networks_outside_the_family_are_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=r"^this is [a-z0-9_]+: .* outside the family$"):
        canonical_name(name)


def test_archs_written_before_rows_listed_channels_are_equal() -> None:
    for arch in RELEASED_ARCHS:
        stated = arch.to_dict()
        stated["stages"] = [
            {name: value for name, value in row.items() if name not in ("expanded", "squeezed")}
            for row in stated["stages"]
        ]
        assert Arch.from_dict(stated) == arch


def test_pruned_rows_are_what_they_list() -> None:
    for arch in RELATED_ARCHS:
        for row in arch.stages if arch.name.endswith("_pruned") else ():
            listed = [layer for layer in layers(arch) if layer.stage == arch.stages.index(row) + 1]
            assert [layer.expanded for layer in listed] == list(row.expanded or [0] * row.layers)
            assert {layer.channels for layer in listed} == {row.channels}


def test_archs_are_read_only() -> None:
    with pytest.raises(TypeError):
        ARCHS["mine"] = ARCHS["b0"]  # type: ignore[index]


def test_resolve() -> None:
    assert resolve_arch("efficientnet-b3") is ARCHS["b3"]
    assert resolve_arch(ARCHS["b3"]) is ARCHS["b3"]
    with pytest.raises(ValueError):
        resolve_arch("b99")


def test_published_accuracies() -> None:
    assert {arch.name for arch in RELEASED_ARCHS} - {"nano"} <= set(PUBLISHED_TOP1) <= set(ARCHS)
    assert all(59 < top1 < 90 and source for top1, source in PUBLISHED_TOP1.values())
    assert PUBLISHED_TOP1["b0"][0] == 77.1
    assert PUBLISHED_TOP1["b7"][0] == 84.3
