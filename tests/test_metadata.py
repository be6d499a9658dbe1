"""Model metadata: numerics, preprocessing, labels, provenance."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.arch import ARCHS
from effnet.arch.serde import Record
from effnet.metadata import (
    DECODE_MODES,
    INTERPOLATIONS,
    PADDINGS,
    RESAMPLING_LIBRARIES,
    RESIZE_MODES,
    Labels,
    ModelMetadata,
    Numerics,
    Preprocess,
    Provenance,
    default_crop_fraction,
)

sides = st.integers(1, 1024)
means = st.floats(-1, 1)
records = st.one_of(
    st.builds(Numerics, st.sampled_from(PADDINGS), st.floats(1e-9, 1)),
    st.builds(
        Preprocess,
        st.tuples(sides, sides),
        st.floats(0.01, 1),
        st.sampled_from(RESIZE_MODES),
        st.sampled_from(INTERPOLATIONS),
        st.tuples(means, means, means),
        st.tuples(*[st.floats(0.01, 2)] * 3),
        st.sampled_from(DECODE_MODES),
    ),
    st.builds(
        Preprocess,
        interpolation=st.sampled_from(("bicubic", "bilinear")),
        resampling=st.sampled_from(RESAMPLING_LIBRARIES),
    ),
    st.builds(Labels, st.lists(st.text(), unique=True).map(tuple)),
    st.builds(Provenance, st.text(), st.text(), st.text(), st.lists(st.text()).map(tuple)),
)


@given(records)
def test_json_round_trip(record: Record) -> None:
    read = type(record).from_json(record.to_json())
    assert read == record
    assert hash(read) == hash(record)


@pytest.mark.parametrize("kind", [Numerics, Preprocess, Labels, Provenance])
def test_defaults_and_invalid_json(kind: type[Record]) -> None:
    assert kind.from_json("{}") == kind()
    for text in ("", "nonsense", "null", "[]", '"same"', '{"nonsense": 1}'):
        with pytest.raises(ValueError, match=kind.__name__):
            kind.from_json(text)


def test_an_int_is_a_square_size() -> None:
    assert Preprocess(224) == Preprocess((224, 224))  # type: ignore[arg-type]


def test_former_field_names_are_read() -> None:
    """Files written before the fields were renamed."""
    assert Preprocess.from_json('{"size": [300, 300], "crop": 0.904}') == Preprocess((300, 300), crop_fraction=0.904)
    assert Provenance.from_json('{"licence": "MIT"}') == Provenance(license="MIT")
    assert Labels.from_json('{"kind": "any"}') == Labels(task="multilabel")
    metadata = ModelMetadata(ARCHS["b0"], Numerics(), Preprocess((300, 300)), Labels(), Provenance(license="MIT"))
    data = metadata.to_dict()
    data["preprocess"]["crop"] = data["preprocess"].pop("crop_fraction")
    data["provenance"]["licence"] = data["provenance"].pop("license")
    data["labels"]["kind"] = {"classification": "one"}[data["labels"].pop("task")]
    assert ModelMetadata.from_json(json.dumps(data)) == metadata


def test_unknown_field_suggests_a_similar_one() -> None:
    with pytest.raises(ValueError, match="did you mean padding"):
        Numerics.from_json('{"pading": "same"}')


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Numerics, {"padding": "valid"}),
        (Numerics, {"padding": True}),
        (Numerics, {"bn_eps": 0}),
        (Numerics, {"bn_eps": float("nan")}),
        (Numerics, {"bn_eps": "1e-3"}),
        (Numerics, {"fused_padding": "valid"}),
        (Preprocess, {"size": 224.0}),
        (Preprocess, {"size": 0}),
        (Preprocess, {"size": (224,)}),
        (Preprocess, {"size": (224, 0)}),
        (Preprocess, {"size": (224, 224.0)}),
        (Preprocess, {"size": (True, True)}),
        (Preprocess, {"crop_fraction": 0}),
        (Preprocess, {"crop_fraction": 1.1}),
        (Preprocess, {"crop_fraction": float("nan")}),
        (Preprocess, {"resize": "stretch"}),
        (Preprocess, {"interpolation": "cubic"}),
        (Preprocess, {"decode": "fast"}),
        (Preprocess, {"resampling": "tensorflow2"}),
        (Preprocess, {"interpolation": "lanczos", "resampling": "tensorflow"}),
        (Preprocess, {"interpolation": "nearest", "resampling": "tensorflow1"}),
        (Preprocess, {"mean": (0.5,)}),
        (Preprocess, {"mean": (), "std": ()}),
        (Preprocess, {"mean": 0.5}),
        (Preprocess, {"mean": ("0", "0", "0")}),
        (Preprocess, {"std": (1, 1, 0)}),
        (Preprocess, {"std": (1, 1, float("inf"))}),
        (Labels, {"names": ("cat", "cat")}),
        (Labels, {"names": "cat"}),
        (Labels, {"names": ("cat", 1)}),
        (Labels, {"names": ["cat"]}),
        (Provenance, {"source": None}),
        (Provenance, {"history": (1,)}),
        (Provenance, {"history": "trained"}),
        (Provenance, {"history": ["trained"]}),
        (Provenance, {"history": 5}),
    ],
    ids=str,
)
def test_invalid_values(kind: type[Record], wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        kind(**wrong)


def test_official_numerics_are_the_default() -> None:
    assert Numerics() == Numerics(padding="same", bn_eps=1e-3)


def test_crop() -> None:
    assert default_crop_fraction(224) == 0.875
    assert Preprocess().resize_size == (256, 256)
    assert Preprocess((240, 320), crop_fraction=1.0).resize_size == (240, 320)
    assert Preprocess((300, 300), crop_fraction=default_crop_fraction(300)).resize_size == (332, 332)
    assert Preprocess((384, 384), crop_fraction=1.0, resize="squash").resize_size == (384, 384)
    assert Preprocess((300, 300), crop_fraction=0.9, resize="squash").resize_size == (333, 333)


def test_metadata_without_resampling_means_pil() -> None:
    old = Preprocess().to_dict()
    del old["resampling"]
    assert Preprocess.from_dict(old) == Preprocess(resampling="pil")


def test_the_legacy_crop_adds_32_pixels() -> None:
    # rounding must not put the quotient just below the integer
    wrong = [
        s
        for s in range(96, 1001)
        if Preprocess((s, s), crop_fraction=default_crop_fraction(s)).resize_size != (s + 32, s + 32)
    ]
    assert wrong == []


def test_small_images_are_not_cropped() -> None:
    assert {default_crop_fraction(side) for side in range(1, 96)} == {1.0}


def test_labels() -> None:
    assert Labels(("cat", "dog")).name(1) == "dog"
    assert Labels().name(7) == "class 7"
    assert Labels(("cat", "dog")).name(2) == "class 2"


def test_provenance_history() -> None:
    original = Provenance("b0/ra", "timm", "apache-2.0")
    later = original.with_event("fine-tuned").with_event("folded")
    assert later.history == ("fine-tuned", "folded")
    assert (later.source, later.layout, later.license) == (original.source, original.layout, original.license)
    assert original.history == ()
