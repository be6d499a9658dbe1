"""Keras' three kinds of files, in both directions: as Keras writes and opens them, and as nobody should have."""

from __future__ import annotations

import json
import logging
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from effnet.arch import ARCHS
from effnet.data.preprocessing import normalize
from effnet.metadata import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from effnet.net import EfficientNet, create
from effnet.weights import key_maps, load, save
from effnet.weights.conversion import drop_batch_counters, key_map, layout_shapes
from effnet.weights.defaults import default_preprocess
from effnet.weights.detect import detect_layouts
from effnet.weights.formats.keras_config import KerasConfig
from effnet.weights.formats.keras_reader import LayerGroup, layer_class, name_groups
from effnet.weights.formats.keras_writer import build_nodes

SUFFIXES = (".h5", ".weights.h5", ".keras")
SIZE = (64, 96)
MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)


@pytest.fixture(scope="module")
def peer() -> Any:
    """Keras as its users use it."""
    pytest.importorskip("keras")
    from tests.parity.peers import keras

    keras.keras()
    return keras


def network(name: str, classes: int = 5, channels: int = 3) -> EfficientNet:
    """Ours, with statistics that no default could stand in for."""
    torch.manual_seed(0)
    model = create(name, classes=classes, channels=channels).eval()
    with torch.no_grad():
        for key, value in drop_batch_counters(model.state_dict()).items():
            if "norm" in key:
                value.uniform_(0.8, 1.2)
    model.preprocess = Preprocess(SIZE, 0.9, "squash", "bilinear", MEAN[:channels], STD[:channels])
    return model


@pytest.fixture(scope="module")
def ours() -> EfficientNet:
    return network("b0")


@pytest.fixture(scope="module")
def files(ours: EfficientNet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Ours in each kind of file."""
    folder = tmp_path_factory.mktemp("files")
    return {suffix: save(ours, folder / f"m{suffix}", "keras") for suffix in SUFFIXES}


def same(found: EfficientNet, expected: EfficientNet) -> bool:
    theirs = drop_batch_counters(expected.state_dict())
    return all(torch.equal(value, theirs[key]) for key, value in drop_batch_counters(found.state_dict()).items())


def pictures(size: tuple[int, int] = SIZE, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, *size, channels), dtype=torch.uint8, generator=generator)  # (N, H, W, C)


@torch.no_grad()
def agree(found: EfficientNet, theirs: Any, peer: Any) -> None:
    """The network that was read and Keras' own give the same probabilities for the same bytes."""
    size, channels = theirs.input_shape[1:3], theirs.input_shape[3]
    pixels = pictures(size, channels)
    with peer.quiet():
        expected = torch.from_numpy(np.array(theirs(pixels.numpy().astype(np.float32), training=False)))
    got = found(normalize(pixels, found.preprocess))
    torch.testing.assert_close(got.softmax(dim=1), expected, rtol=1e-4, atol=1e-6)


# What Keras writes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["b0", "v2_b0"])
def test_the_layers_are_those_that_keras_builds(name: str, peer: Any) -> None:
    arch = ARCHS[name]
    theirs = peer.create_network(name, SIZE, classes=7, classifier_activation="softmax")
    ours = build_nodes(arch, 7, 3, replace(default_preprocess(arch), size=SIZE))
    assert [(node.kind, node.shape) for node in ours] == [
        (type(layer).__name__, tuple(layer.output.shape[1:])) for layer in theirs.layers
    ]
    for node, layer in zip(ours, theirs.layers, strict=True):
        config = json.loads(json.dumps(layer.get_config()))  # tuples become lists
        assert node.name == re.sub(r"(?<=(.ation|caling|_layer))_\d+$", "", layer.name)
        for key, value in node.config.items():
            if key == "rate" and key_maps.is_v2(arch):
                continue  # Keras drops at B0's rates in V2 of any size; the arch has the published ones
            expected = "silu" if config[key] == "swish" else config[key]
            close = isinstance(value, float) or key in ("mean", "variance")
            assert value == (pytest.approx(expected) if close else expected), (node.name, key)
    variables = {each.path: tuple(each.shape) for layer in theirs.layers for each in layer.weights}
    table = layout_shapes("keras", arch, 7)
    assert {key: shape for key, shape in variables.items() if not key.startswith("normalization")} == table
    if key_maps.is_v2(arch):
        stated = KerasConfig.from_json(theirs.to_json(), Path("m.json")).preprocess({}, [])
        assert stated["mean"] == pytest.approx(default_preprocess(arch).mean, rel=1e-6)
        assert stated["std"] == pytest.approx(default_preprocess(arch).std, rel=1e-6)


@pytest.mark.sweep
@pytest.mark.parametrize("name", [name for name in key_maps.KERAS_ARCHS if name not in ("b0", "v2_b0")])
def test_the_layers_of_the_others_too(name: str, peer: Any) -> None:
    test_the_layers_are_those_that_keras_builds(name, peer)


@pytest.fixture(scope="module")
def backbone(peer: Any) -> Any:
    """B0 for any size, without a head."""
    with peer.quiet():
        inner = peer.constructor("b0")(weights=None, include_top=False)
        peer.copy_weights(inner, network("b0", 0))
        peer.set_normalization(inner, np.array(MEAN), np.array(STD) ** 2)
    return inner


@pytest.fixture(scope="module")
def tuned(peer: Any, backbone: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Path]]:
    """A frozen network inside another model, with a head of its own and an optimiser that has begun."""
    layers, folder = peer.keras().layers, tmp_path_factory.mktemp("tuned")
    with peer.quiet():
        backbone.trainable = False
        around = [layers.Input((*SIZE, 3)), layers.RandomFlip("horizontal"), backbone]
        around += [layers.GlobalAveragePooling2D(), layers.Dropout(0.3), layers.Dense(5, "softmax", name="species")]
        model = peer.keras().Sequential(around)
        model.compile("adam")
        model.optimizer.build(model.trainable_variables)
        paths = {suffix: folder / f"m{suffix}" for suffix in SUFFIXES}
        for path in paths.values():
            peer.write(model, path)
    return model, paths


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_network_inside_a_model_with_its_own_head(
    suffix: str, tuned: tuple[Any, dict[str, Path]], peer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    theirs, paths = tuned
    with caplog.at_level(logging.WARNING, "effnet"):
        found = load(paths[suffix])
    assert (found.arch.name, found.classes) == ("b0", 5)
    assert (found.preprocess.mean, found.preprocess.std) == (MEAN, STD)
    assert (found.preprocess.resize, found.preprocess.crop_fraction) == ("squash", 1)
    assert "its 6 optimizer tensors are ignored" in caplog.text
    assert "assuming that images are squashed" in caplog.text
    if suffix != ".weights.h5":  # which says nothing of sizes
        assert found.preprocess.size == SIZE
        assert "pads as for even maps" in caplog.text
    agree(found, theirs, peer)


def test_pictures_of_one_channel(peer: Any, tmp_path: Path) -> None:
    """V2 scales them to −1 … 1, as S, M and L do those of three."""
    theirs = peer.constructor("v2_b0")(weights=None, input_shape=(*SIZE, 1), classes=5)
    with peer.quiet():
        theirs.save(tmp_path / "m.keras")
    found = load(tmp_path / "m.keras")
    assert (found.channels, found.preprocess.size) == (1, SIZE)
    assert (found.preprocess.mean, found.preprocess.std) == (pytest.approx((128 / 255,)), pytest.approx((128 / 255,)))
    agree(found, theirs, peer)


def published(path: Path, model: EfficientNet, mean: Any, variance: Any) -> Path:
    """A file of weights as Keras 2 publishes it, from before the second Rescaling was there to be listed."""
    save(model, path, "keras")
    with h5py.File(path, "r+") as file:
        file["normalization/normalization/mean:0"][:] = mean
        file["normalization/normalization/variance:0"][:] = variance
    return path


def test_the_rescaling_that_only_imagenet_has(
    peer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = published(tmp_path / "b0.h5", network("b0", 1000), IMAGENET_MEAN, IMAGENET_STD)
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *arguments, **more: str(file))
    with peer.quiet():
        theirs = peer.constructor("b0")(weights="imagenet")
    assert sum(type(layer).__name__ == "Rescaling" for layer in theirs.layers) == 2
    with caplog.at_level(logging.WARNING, "effnet"):
        found = load(file)
    assert "its stored variance is ImageNet's standard deviation" in caplog.text
    agree(found, theirs, peer)
    caplog.clear()
    for suffix in (".weights.h5", ".keras"):
        path = tmp_path / f"again{suffix}"
        with peer.quiet():
            peer.write(theirs, path)
        again = load(path)
        assert again.preprocess.mean == pytest.approx(IMAGENET_MEAN)
        assert again.preprocess.std == pytest.approx(IMAGENET_STD)
        assert same(again, found)
    assert "its stored variance" not in caplog.text


def test_the_same_variance_in_a_model_without_it(tmp_path: Path) -> None:
    """A whole model says that it rescales once, as Keras did before 2022: then that is what it was trained with."""
    model, std = network("b0", 1000), tuple(float(f"{value**0.5:.7g}") for value in IMAGENET_STD)
    model.preprocess = Preprocess(mean=IMAGENET_MEAN, std=std)
    assert load(save(model, tmp_path / "m.keras", "keras")).preprocess.std == std
    assert load(save(model, tmp_path / "m.h5", "keras")).preprocess.std == IMAGENET_STD


def test_weights_alone_as_keras_3_writes_them_in_keras_2s_way(backbone: Any, peer: Any, tmp_path: Path) -> None:
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    with peer.quiet(), h5py.File(tmp_path / "m.h5", "w") as file:
        save_weights_to_hdf5_group(file, backbone)
    found = load(tmp_path / "m.h5")
    assert (found.arch.name, found.classes, found.preprocess.crop_fraction) == ("b0", 0, 0.875)
    assert (found.preprocess.mean, found.preprocess.std) == (MEAN, STD)
    assert same(found, network("b0", 0))


# What Keras opens ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "channels"), [("b0", 3), ("v2_b0", 3)])
def test_keras_opens_the_archive_that_we_write(name: str, channels: int, peer: Any, tmp_path: Path) -> None:
    """With its own size, normalisation and number of classes, whatever keras.applications would have."""
    model = network(name, 7, channels)
    with peer.quiet():
        theirs = peer.keras().models.load_model(save(model, tmp_path / "m.keras", "keras"))
    assert theirs.input_shape == (None, *SIZE, channels)
    agree(model, theirs, peer)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_there_and_back_again(suffix: str, files: dict[str, Path], ours: EfficientNet, tmp_path: Path) -> None:
    found = load(files[suffix])
    assert same(found, ours)
    assert (found.preprocess.mean, found.preprocess.std) == (MEAN, STD)
    assert found.numerics == ours.numerics
    again = save(ours, tmp_path / files[suffix].name, "keras")
    assert again.read_bytes() == files[suffix].read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_half_precision(suffix: str, files: dict[str, Path], tmp_path: Path) -> None:
    path = save(network("b0").half(), tmp_path / f"m{suffix}", "keras")
    assert path.stat().st_size < 0.6 * files[suffix].stat().st_size
    assert same(load(path), network("b0").half().float())


def test_the_two_kinds_of_hdf5(files: dict[str, Path]) -> None:
    with h5py.File(files[".h5"]) as file:
        assert "block1a_dwconv/block1a_dwconv/depthwise_kernel:0" in file
        assert "rescaling" in {name.decode() for name in file.attrs["layer_names"]}
    with h5py.File(files[".weights.h5"]) as file:
        assert "layers/depthwise_conv2d_3/vars/0" in file


def test_another_suffix_is_refused(ours: EfficientNet, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"keras's layout are written to \.h5 or \.weights\.h5 or \.keras"):
        save(ours, tmp_path / "m.pth", "keras")


def test_what_v2s_weights_cannot_carry_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = network("v2_b0")
    with caplog.at_level(logging.WARNING, "effnet"):
        save(model, tmp_path / "m.keras", "keras")
        assert not caplog.text
        save(model, tmp_path / "m.h5", "keras")
    assert "Keras' own v2_b0 normalizes by mean (0.485, 0.456, 0.406)" in caplog.text


# Names and counts, without Keras ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", key_maps.KERAS_ARCHS)
@pytest.mark.parametrize("classes", [0, 11])
def test_every_variant_is_recognised_as_itself_alone(name: str, classes: int) -> None:
    tensors = {
        key: torch.empty(shape, device="meta") for key, shape in layout_shapes("keras", ARCHS[name], classes).items()
    }
    assert [(found.layout, found.arch.name, found.classes) for found in detect_layouts(tensors)] == [
        ("keras", name, classes)
    ]


@pytest.mark.parametrize("name", key_maps.KERAS_ARCHS)
@pytest.mark.parametrize("classes", [0, 11])
def test_groups_without_names_are_named_by_their_order(name: str, classes: int) -> None:
    """Keras counts each class in the order of the layers."""
    expected = layout_shapes("keras", ARCHS[name], classes)
    counts: dict[str, int] = {}
    groups = []
    for node in build_nodes(ARCHS[name], classes, 3, Preprocess()):
        variables = {key.partition("/")[2]: shape for key, shape in expected.items() if key.startswith(f"{node.name}/")}
        if variables:
            kind = layer_class(node.name)
            counts[kind] = counts.get(kind, -1) + 1
            sides = tuple(variables.values())
            groups.append(
                LayerGroup("layers", kind, counts[kind], "", dict.fromkeys(variables, node.name), sides, False)
            )
    groups.sort(key=lambda group: (group.kind, group.count))
    found = {group.name: set(group.variables.values()) for group in name_groups(groups, Path("m.weights.h5"))}
    assert found == {
        layer: {layer} for layer in {key.partition("/")[0] for key in key_map("keras", ARCHS[name], classes).values()}
    }


def older(path: Path, change: Callable[[h5py.File], None]) -> Path:
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def without_names(file: h5py.File) -> None:
    """As Keras 3 wrote before it wrote names."""
    file.visititems(lambda _, found: found.attrs.pop("name", None) and None)


def of_keras_2(file: h5py.File) -> None:
    """As Keras 2.13 wrote, with another word for the layers; it counted a layer once more than it wrote it."""
    without_names(file)
    file.move("layers", "_layer_checkpoint_dependencies")
    found = file["_layer_checkpoint_dependencies"]
    for kind in ("conv2d", "batch_normalization"):
        for count in reversed(range(1, sum(name.startswith(f"{kind}_") for name in found) + 1)):
            found.move(f"{kind}_{count}", f"{kind}_{2 * count}")


def of_windows(file: h5py.File) -> None:
    """The same, where paths are joined by the other slash."""
    of_keras_2(file)
    found = file["_layer_checkpoint_dependencies"]
    for name in list(found):
        file.move(f"_layer_checkpoint_dependencies/{name}/vars", f"_layer_checkpoint_dependencies\\{name}\\vars")
    del file["_layer_checkpoint_dependencies"]


@pytest.mark.parametrize("change", [without_names, of_keras_2, of_windows])
def test_older_versions_of_the_same(
    change: Callable[[h5py.File], None], files: dict[str, Path], ours: EfficientNet, tmp_path: Path
) -> None:
    path = tmp_path / "m.weights.h5"
    path.write_bytes(files[".weights.h5"].read_bytes())
    assert same(load(older(path, change)), ours)


# Other models, and files that are none ---------------------------------------------------------------------------


def rewritten(path: Path, to: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The archive with another model in its JSON."""
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(to, "w") as other:
        config = json.loads(archive.read("config.json"))
        change(config["config"])
        other.writestr("config.json", json.dumps(config))
        other.writestr("model.weights.h5", archive.read("model.weights.h5"))
    return to


def layer_called(config: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(layer for layer in config["layers"] if layer["name"] == name)
    return found


def another(kind: str, after: str) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        place = config["layers"].index(layer_called(config, after)) + 1
        config["layers"].insert(place, {"class_name": kind, "config": {"name": "other"}, "name": "other"})

    return change


def set_in(name: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: layer_called(config, name)["config"].update(values)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (set_in("stem_activation", activation="relu"), "its activation is relu"),
        (set_in("stem_bn", epsilon=1e-5), "more than one epsilon"),
        (lambda config: config.pop("layers"), "its model's JSON cannot be read"),
        (lambda config: config["layers"].append(7), "its model's JSON cannot be read"),
        (lambda config: config.update(layers=config["layers"][:9]), "no EfficientNet of keras.applications"),
        (set_in("rescaling", scale=0), "invalid preprocessing"),
    ],
)
def test_a_model_of_another_form(
    change: Callable[[dict[str, Any]], None], complaint: str, files: dict[str, Path], tmp_path: Path
) -> None:
    path = rewritten(files[".keras"], tmp_path / "m.keras", change)
    with pytest.raises(ValueError, match=rf"m\.keras: .*{complaint}"):
        load(path)


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        (another("Dense", "avg_pool"), "GlobalAveragePooling2D, Dense, Dense"),
        (another("GlobalMaxPooling2D", "top_activation"), "GlobalMaxPooling2D, GlobalAveragePooling2D, Dense"),
        (another("Lambda", "avg_pool"), "GlobalAveragePooling2D, Lambda, Dense"),
        (set_in("predictions", activation="relu"), "GlobalAveragePooling2D, Dense"),
    ],
)
def test_a_head_of_another_form(
    change: Callable[[dict[str, Any]], None],
    kinds: str,
    files: dict[str, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "effnet"):
        assert load(rewritten(files[".keras"], tmp_path / "m.keras", change)).classes == 0
    assert f"after the network come {kinds}, which are not one linear layer" in caplog.text


def test_sigmoid_of_several_outputs(files: dict[str, Path], tmp_path: Path) -> None:
    path = rewritten(files[".keras"], tmp_path / "m.keras", set_in("predictions", activation="sigmoid"))
    assert load(path).labels.task == "multilabel"


def test_what_stands_before_the_network(
    files: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = rewritten(files[".keras"], tmp_path / "m.keras", another("Lambda", "input_layer"))
    with caplog.at_level(logging.WARNING, "effnet"):
        assert load(path).preprocess.mean == MEAN
    assert "ignoring unknown layers before the network: Lambda" in caplog.text
    caplog.clear()

    def bare(config: dict[str, Any]) -> None:
        config["layers"] = [each for each in config["layers"] if each["name"] not in ("rescaling", "normalization")]

    assert load(rewritten(files[".keras"], path, bare)).preprocess.std == (0.5, 0.5, 0.5)
    assert "assuming images scaled to -1 … 1" in caplog.text


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5"])
@pytest.mark.parametrize("layer", ["gru", "batch_normalization_99", "dense_1"])
def test_weights_beside_the_network(
    suffix: str, layer: str, files: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / f"m{suffix}"
    path.write_bytes(files[suffix].read_bytes())
    arrays = [np.ones((3, 2)), np.ones(2)] if "dense" in layer else [np.ones(2)] * 4
    with h5py.File(path, "r+") as file:
        for place, (name, value) in enumerate(zip(("kernel", "bias", "more", "most"), arrays, strict=False)):
            file[f"{layer}/{layer}/{name}:0" if suffix == ".h5" else f"layers/{layer}/vars/{place}"] = value
        if suffix == ".weights.h5":
            file[f"layers/{layer}/vars"].attrs["name"] = layer
    with caplog.at_level(logging.WARNING, "effnet"):
        assert load(path).classes == 0
    assert re.search(rf"besides the network it has .*{layer}.*: opened without a classifier", caplog.text)
