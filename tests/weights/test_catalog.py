"""The catalogue against the libraries that publish the weights, and the names by which its cards are found."""

from __future__ import annotations

import ast
import warnings
from collections import Counter
from contextlib import suppress
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from effnet.arch import ARCHS, canonical_name
from effnet.arch.variants import RELATED_ARCHS, RELEASED_ARCHS
from effnet.data.torchvision_compat import declare_operators
from effnet.metadata import Preprocess
from effnet.weights.catalog import (
    DEFAULTS,
    ENTRIES,
    PERMISSIVE_LICENSES,
    PUBLISHERS,
    CatalogEntry,
    find_entry,
    search_entries,
)
from effnet.weights.catalog.entry import class_labels
from effnet.weights.key_maps import LAYOUTS

NAMES = list(ENTRIES)
# timm has the networks, but no weights
UNTRAINED = {"nano", "mobilenetv2_035", "mobilenetv2_075", "mnasnet_050", "mnasnet_075", "mnasnet_140"}
RELATIVES = [arch.name for arch in RELATED_ARCHS]
UNTRAINED |= {"semnasnet_050", "semnasnet_140"}


def peer(name: str) -> ModuleType:
    """The library of that name, or the test is skipped."""
    declare_operators()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: ModuleType = pytest.importorskip(name, reason=f"{name} is not installed")
    return module


def of(publisher: str) -> dict[str, CatalogEntry]:
    return {card.name: card for card in search_entries(publisher=publisher)}


@pytest.mark.parametrize("name", NAMES)
def test_card(name: str) -> None:
    found = ENTRIES[name]
    assert found.name == name == name.lower()
    assert name.startswith(f"{found.arch}/")
    assert found.publisher in PUBLISHERS
    assert found.layout in {*LAYOUTS, "keras", "tensorflow", "tflite"}
    assert found.citation
    assert [bool(place) for place in (found.hub, found.url, found.package)].count(True) == 1
    assert found.url.startswith("https://") or not found.url
    assert CatalogEntry.from_json(found.to_json()) == found
    classes = {"imagenet-1k": 1000, "imagenet-1k+background": 1001, "imagenet-12k": 11821, "imagenet-21k": 21843, "": 0}
    assert found.classes == classes[found.label_set]
    if found.top1 is not None:
        assert 59 < found.top1 < 90
        assert found.label_set.startswith("imagenet-1k")
    assert found.test_size in (None, found.preprocess.size[0])
    assert found.top1 is not None or found.test_size is None
    if found.hash is not None:
        kind, digits = found.hash.split(":")
        assert len(digits) == (64 if found.package else {"sha256": 8, "md5": 32}[kind])
        int(digits, 16)


def test_files_are_told_apart() -> None:
    where = Counter((found.hub, found.url, found.file) for found in ENTRIES.values())
    assert where.most_common(1)[0][1] == 1


def test_numbers() -> None:
    counts = Counter(found.publisher for found in ENTRIES.values())
    assert counts == {"timm": 97, "torchvision": 12, "lukemelas": 17, "keras": 30, "google": 76, "ml-illustrated": 3}


def test_what_is_published_for_each_arch() -> None:
    assert {found.arch for found in ENTRIES.values()} == set(ARCHS) - UNTRAINED
    published = {(found.arch, found.publisher) for found in ENTRIES.values()}
    assert all((arch, "timm") in published for arch in ARCHS if arch not in UNTRAINED)
    assert all((arch.name, "google") in published for arch in RELEASED_ARCHS if arch.name != "nano")


def test_one_default_each() -> None:
    """The rule of the catalogue's docstring, said once more."""
    assert list(DEFAULTS) == [arch for arch in ARCHS if arch not in UNTRAINED]
    for arch, default in DEFAULTS.items():
        assert [found for found in search_entries(arch) if found.arch == arch and found.default] == [default]
        assert default.publisher == "timm"
        assert default.license in PERMISSIVE_LICENSES
        assert default.label_set == "imagenet-1k"
        rivals = [found for found in of("timm").values() if found.arch == arch and found.label_set == "imagenet-1k"]
        at_home = [found for found in rivals if found.test_size == ARCHS[arch].resolution]
        assert default in (at_home or rivals)
        assert bool(at_home) == (arch not in ("lite3", "lite4", "test_efficientnet"))
        assert all(found.top1 <= default.top1 for found in at_home or rivals if found.top1 and default.top1)
    assert DEFAULTS["b0"].name == "b0/tf_ns_jft_in1k"
    assert DEFAULTS["lite0"].name == "lite0/ra_in1k"
    assert DEFAULTS["v2_s"].name == "v2_s/tf_in21k_ft_in1k"


def test_both_sizes_of_lite3_and_lite4_are_named() -> None:
    for arch, own, timms in (("lite3", "280", "300"), ("lite4", "300", "380")):
        for found in search_entries(arch):
            assert own in found.note
            assert timms in found.note
            assert str(found.preprocess.size[0]) == (timms if found.publisher == "timm" else own)


def test_timm() -> None:
    timm = peer("timm")
    ours = {found.hub: found for found in of("timm").values()}
    for model in timm.list_pretrained(["*efficientnet*", "tinynet*", "mobilenetv2*", "*mnasnet*"]):
        try:
            arch = canonical_name(model)
        except ValueError:
            continue  # a network that is not ours
        theirs = timm.get_pretrained_cfg(model)
        found = ours.pop(theirs.hf_hub_id)
        data = timm.data.resolve_data_config(pretrained_cfg=theirs.to_dict(), use_test_size=True)
        assert found.arch == arch
        assert found.license == theirs.license
        assert found.classes == theirs.num_classes
        assert found.preprocess == Preprocess(
            data["input_size"][1:],
            data["crop_pct"],
            {"center": "crop"}.get(data["crop_mode"], data["crop_mode"]),
            data["interpolation"],
            data["mean"],
            data["std"],
        )
        if "trained at" in found.note:
            assert found.note == f"trained at {theirs.input_size[1]} px"
        else:
            assert found.preprocess.size == theirs.input_size[1:]
    assert not ours


@pytest.mark.parametrize(
    "name",
    [name for name, card in of("timm").items() if card.arch in ("b0", "b5", "lite0", "edge_s", "v2_s", *RELATIVES)],
)
def test_timms_numerics(name: str) -> None:
    timm = peer("timm")
    found = ENTRIES[name]
    with torch.device("meta"):
        model = timm.create_model(found.hub.removeprefix("timm/"), pretrained=False)
    assert {module.eps for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)} == {
        found.numerics.bn_eps
    }
    assert (type(model.conv_stem).__name__ == "Conv2dSame") == (found.numerics.padding == "same")


def test_timms_own_defaults() -> None:
    timm = peer("timm")
    for model in {found.hub.removeprefix("timm/").partition(".")[0] for found in of("timm").values()}:
        if model.startswith("tf_"):
            assert find_entry(model).hub == timm.get_pretrained_cfg(model).hf_hub_id


def test_timms_old_names() -> None:
    registry = peer("timm.models._registry")
    ours = {found.hub.removeprefix("timm/") for found in of("timm").values()}
    old = {name: new for name, new in registry._deprecated_models.items() if new in ours}
    assert len(old) == 27
    for name, new in old.items():
        assert find_entry(name).hub == f"timm/{new}"


def test_torchvision() -> None:
    models = peer("torchvision").models
    theirs = [
        weights for name in models.list_models(include="efficientnet*") for weights in models.get_model_weights(name)
    ]
    assert len(theirs) == len(of("torchvision"))
    for weights in theirs:
        found = find_entry(str(weights))
        transforms = weights.transforms()
        assert found.url == weights.url
        assert found.hash == f"sha256:{weights.url.rpartition('-')[2].removesuffix('.pth')}"
        assert found.top1 == weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        assert found.preprocess.size == tuple(transforms.crop_size * 2)
        assert found.preprocess.resize_size == tuple(transforms.resize_size * 2)
        assert found.preprocess.interpolation == transforms.interpolation.value
        assert found.preprocess.mean == tuple(transforms.mean)
        assert found.preprocess.std == tuple(transforms.std)
        assert found.numerics == LAYOUTS["torchvision"].numerics(ARCHS[found.arch])
    for name in models.list_models(include="efficientnet*"):
        weights = models.get_model_weights(name)
        assert find_entry(f"{weights.__name__}.DEFAULT") == find_entry(str(weights.DEFAULT))


def test_lukemelas() -> None:
    utils = peer("efficientnet_pytorch.utils")
    theirs = {f"{name.rpartition('-')[2]}/lukemelas": url for name, url in utils.url_map.items()}
    theirs |= {f"{name.rpartition('-')[2]}/lukemelas_advprop": url for name, url in utils.url_map_advprop.items()}
    assert {name: found.url for name, found in of("lukemelas").items()} == theirs
    for name, found in of("lukemelas").items():
        assert found.hash == f"sha256:{found.url.rpartition('-')[2].removesuffix('.pth')}"
        assert found.preprocess.size == (utils.efficientnet_params(f"efficientnet-{found.arch}")[2],) * 2
        assert found.preprocess.crop_fraction == 1
        assert (found.preprocess.mean == (0.5, 0.5, 0.5)) == name.endswith("_advprop")


def test_keras() -> None:
    spec = find_spec("keras")
    if spec is None or not spec.origin:
        pytest.skip("keras is not installed")
    applications = Path(spec.origin).parent / "src" / "applications"  # read, since importing it takes TensorFlow along
    theirs: dict[str, tuple[str, str]] = {}
    for family, stem, size in (("efficientnet", "efficientnet", ""), ("efficientnet_v2", "efficientnetv2-", "v2_")):
        stated = constants(applications / f"{family}.py")
        for key, hashes in stated["WEIGHTS_HASHES"].items():
            variant = key.removeprefix("-")
            for end, md5 in zip(("", "_notop"), hashes, strict=True):
                address = f"{stated['BASE_WEIGHTS_PATH']}{stem}{variant}{end}.h5"
                theirs[f"{size}{variant}/keras{end}"] = (address, f"md5:{md5}")
    assert {name: (found.url, found.hash) for name, found in of("keras").items()} == theirs


def constants(path: Path) -> dict[str, Any]:
    """The constants that the file defines at its top, without running it."""
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            with suppress(ValueError):
                found[node.targets[0].id] = ast.literal_eval(node.value)
    return found


def test_google() -> None:
    found = of("google")
    home = "https://storage.googleapis.com/cloud-tpu-checkpoints/efficientnet/"
    assert {
        name: found[name].url.removeprefix(home) for name in found if name.startswith(("b5/", "l2/", "edge_s/"))
    } == {
        "b5/google": "ckpts/efficientnet-b5.tar.gz",
        "b5/google_aa": "ckptsaug/efficientnet-b5.tar.gz",
        "b5/google_ra": "randaug/efficientnet-b5-randaug.tar.gz",
        "b5/google_ap": "advprop/efficientnet-b5.tar.gz",
        "b5/google_ns": "noisystudent/noisy_student_efficientnet-b5.tar.gz",
        "l2/google_ns": "noisystudent/noisy_student_efficientnet-l2.tar.gz",
        "l2/google_ns_475": "noisystudent/noisy_student_efficientnet-l2_475.tar.gz",
        "edge_s/google": "efficientnet-edgetpu-S.tar.gz",
    }
    assert found["lite4/google_int8"].file == "efficientnet-lite4/efficientnet-lite4-int8.tflite"
    assert found["lite4/google_int8"].layout == "tflite"
    assert found["lite4/google"].layout == "tensorflow"
    assert found["v2_s/google_in21k_ft"].url == f"{home}v2/efficientnetv2-s-21k-ft1k.tgz"
    assert found["v2_xl/google_in21k"].url == f"{home}v2/efficientnetv2-xl-21k.tgz"
    assert found["v2_b0/google"].url == f"{home}v2/efficientnetv2-b0.tgz"
    assert all(one.preprocess.resampling != "pil" and one.hash is None for one in found.values())


def test_googles_pictures() -> None:
    expected = of("google")
    b7, b8, l2 = (expected[name].preprocess for name in ("b7/google_ap", "b8/google_ap", "l2/google_ns_475"))
    assert b7.mean == b8.mean == b8.std == (0.5,) * 3
    assert (b7.size, b7.crop_fraction, b7.resampling) == ((600, 600), 600 / 632, "tensorflow1")
    assert (l2.size, l2.crop_fraction, l2.mean) == ((475, 475), 475 / 507, Preprocess.mean)
    lite, one_k, large, tuned = (
        expected[name].preprocess
        for name in ("lite3/google_int8", "v2_s/google", "v2_s/google_in21k", "v2_s/google_in21k_ft")
    )
    assert (lite.size, lite.mean[0], lite.std[0], lite.interpolation) == ((280, 280), 127 / 255, 128 / 255, "bilinear")
    assert (one_k.size, one_k.resize, one_k.crop_fraction, one_k.mean[0]) == ((384, 384), "squash", 1, 128 / 255)
    assert (large.size, large.resize, large.mean[0]) == ((224, 224), "crop", 128 / 255)
    assert (tuned.size, tuned.resize, tuned.mean[0], tuned.resampling) == ((384, 384), "squash", 0.5, "tensorflow")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("b0", "b0/tf_ns_jft_in1k"),
        ("EfficientNet-B0", "b0/tf_ns_jft_in1k"),
        ("b0/ra_in1k", "b0/ra_in1k"),
        ("B0/RA", "b0/ra_in1k"),
        ("b0/tf_ns", "b0/tf_ns_jft_in1k"),
        ("v2_s/tf_in21k", "v2_s/tf_in21k"),
        ("timm/efficientnet_b0.ra_in1k", "b0/ra_in1k"),
        ("hf-hub:timm/efficientnet_b0.ra_in1k", "b0/ra_in1k"),
        ("tf_efficientnet_b0.ns_jft_in1k", "b0/tf_ns_jft_in1k"),
        ("tf_efficientnet_lite0", "lite0/tf_in1k"),
        ("efficientnet_es_pruned", "edge_s/pruned_in1k"),
        ("efficientnet_b1_pruned", "b1_pruned/in1k"),
        ("timm/tinynet_a.in1k", "tinynet_a/in1k"),
        ("EfficientNet_B0_Weights.IMAGENET1K_V1", "b0/torchvision_v1"),
        ("EfficientNet_V2_M_Weights.DEFAULT", "v2_m/torchvision_v1"),
        ("https://storage.googleapis.com/keras-applications/efficientnetb0_notop.h5", "b0/keras_notop"),
        (
            "https://storage.googleapis.com/cloud-tpu-checkpoints/efficientnet/lite/efficientnet-lite0.tar.gz",
            "lite0/google",
        ),
    ],
)
def test_names(written: str, meant: str) -> None:
    assert find_entry(written).name == meant


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_its_own(name: str) -> None:
    found = ENTRIES[name]
    assert find_entry(name) is found
    assert find_entry(found.hub or name) is found


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("b0/torchvision_v3", "did you mean b0/torchvision_v1?"),
        ("timm/efficientnet_b0.rb_in1k", "did you mean timm/efficientnet_b0.ra_in1k?"),
        ("b1/torchvision", "could be b1/torchvision_v2 or b1/torchvision_v1"),
        ("b9", "did you mean b8?"),
        ("nano", "no weights are published"),
        ("zzz/qqq", "effnet models --weights"),
    ],
)
def test_names_that_mean_nothing(written: str, says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("?", r"\?")):
        find_entry(written)


def test_select() -> None:
    assert search_entries() == list(ENTRIES.values())
    assert {found.arch for found in search_entries("lite")} == {f"lite{number}" for number in range(5)}
    assert [found.name for found in search_entries("b1", "torchvision")][:2] == [
        "b1/torchvision_v2",
        "b1/torchvision_v1",
    ]
    assert {found.arch for found in search_entries("EfficientNet-B3")} == {"b3"}
    assert search_entries("nano") == []
    with pytest.raises(ValueError, match="publisher must be one of timm"):
        search_entries(publisher="tim")
    with pytest.raises(ValueError, match="did you mean b8"):
        search_entries("b9")


def test_labels() -> None:
    names = class_labels(find_entry("b0")).names
    assert len(set(names)) == len(names) == 1000
    assert (names[0], names[388], names[999]) == ("tench", "giant panda", "toilet tissue")
    assert [names[index] for index in (134, 517, 264, 474)] == ["crane bird", "crane", "Cardigan", "cardigan"]
    assert class_labels(find_entry("edge_s/google")).names == ("background", *names)
    assert class_labels(find_entry("v2_s/tf_in21k")).names == class_labels(find_entry("b0/keras_notop")).names == ()


def test_cards_are_checked() -> None:
    stated = find_entry("b0").to_dict()
    assert set(stated) == {field.name for field in fields(CatalogEntry)}
    with pytest.raises(ValueError, match="label_set must be one of"):
        CatalogEntry.from_dict(stated | {"label_set": "cats"})
