"""ImageNet's names, files of labels, and which output a folder of images is for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from effnet.data.class_names import (
    find_imagenet_class,
    imagenet_labels,
    imagenet_table,
    match_classes,
    read_labels,
    rename_outputs,
)
from effnet.metadata import Labels
from tests.weights.test_catalog import peer

NAMES = imagenet_labels().names


def test_names_are_torchvisions_and_synsets_those_of_timm() -> None:
    meta = peer("torchvision.models").EfficientNet_B0_Weights.IMAGENET1K_V1.meta
    assert list(NAMES) == meta["categories"]
    info = peer("timm.data").ImageNetInfo()
    assert [synset for synset, _ in imagenet_table()] == [info.index_to_label_name(index) for index in range(1000)]


def test_labels_of_imagenet() -> None:
    assert (NAMES[0], NAMES[388], NAMES[934], NAMES[999]) == ("tench", "giant panda", "hotdog", "toilet tissue")
    assert imagenet_labels(1001).names == ("background", *NAMES)
    with pytest.raises(ValueError, match="1000 classes, not 7"):
        imagenet_labels(7)


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("n01440764", 0),
        ("n02085620-Chihuahua", 151),
        ("n01440764 tench, Tinca tinca", 0),
        ("crane", 517),
        ("crane bird", 134),
        ("Cardigan", 264),
        ("cardigan", 474),
        ("CARDIGAN", None),  # either
        ("hot_dog", 934),
        ("Hot Dog, frankfurter", 934),
        ("n99999999", None),
        ("", None),
    ],
)
def test_a_class_of_imagenet(text: str, index: int | None) -> None:
    assert find_imagenet_class(text) == index


@pytest.mark.parametrize(
    ("names", "known", "outputs", "found", "way"),
    [
        (("dog", "cat"), ("cat", "dog"), 2, [1, 0], "name"),
        (("dog",), ("cat", "dog"), 2, [1], "name"),
        (("Dog ", "hot_cat"), ("hot cat", "dog"), 2, [1, 0], "similar name"),
        (("n02123045", "n01440764"), NAMES, 1000, [281, 0], "synset"),
        (("n01440764",), ("background", *NAMES), 1001, [1], "synset"),
        (("tench", "goldfish"), [synset for synset, _ in imagenet_table()], 1000, [0, 1], "synset"),
        (("hot dog", "tench, Tinca tinca"), NAMES, 1000, [934, 0], "synset"),
        (("934", "0000"), NAMES, 1000, [934, 0], "number"),
        (("934", "0"), ("background", *NAMES), 1001, [935, 1], "number"),
        (("2", "10"), (), 12, [2, 10], "number"),
        (("2", "1"), ("1", "2"), 2, [1, 0], "name"),
        (("1000",), NAMES, 1000, [None], "name"),
        (("unicorn", "tench"), NAMES, 1000, [None, 0], "name"),
    ],
)
def test_matching(names: tuple[str, ...], known: tuple[str, ...], outputs: int, found: list[int], way: str) -> None:
    assert match_classes(names, known, outputs) == (found, way)


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.txt", "cat\ndog\n", ("cat", "dog")),
        ("a.txt", "\ufeffcat\r\n\r\n3 aces\r\n", ("cat", "3 aces")),
        ("a.txt", "1 dog\n0 cat\n", ("cat", "dog")),
        ("a.txt", "{0: 'cat',\n 1: \"dog's\"}\n", ("cat", "dog's")),
        ("a.txt", "n01440764 tench, Tinca tinca\nn01443537 goldfish\n", ("tench, Tinca tinca", "goldfish")),
        ("a.txt", "n01440764\nn01443537\n", ("n01440764", "n01443537")),
        ("a.txt", "crane\nowl\ncrane\n", ("crane", "owl", "crane (2)")),
        ("a.json", json.dumps(["cat", "dog"]), ("cat", "dog")),
        ("a.json", json.dumps({"1": ["n2", "dog"], "0": ["n1", "cat"]}), ("cat", "dog")),
        ("a.json", json.dumps({"dog": 1, "cat": 0}), ("cat", "dog")),
        ("config.json", json.dumps({"id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": 0}}), ("cat", "dog")),
        ("config.json", json.dumps({"architecture": "b0", "label_names": ["cat", "dog"]}), ("cat", "dog")),
    ],
)
def test_files_of_labels(tmp_path: Path, name: str, text: str, found: tuple[str, ...]) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_labels(tmp_path / name) == found


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"\n \n", "is empty"),
        ("a.txt", b"\xff\xfe\x00", "is not a text"),
        ("a.json", b"{", "is not JSON"),
        ("a.json", b"3", "holds no names"),
        ("a.json", b'{"0": "cat", "2": "dog"}', "must be 0 to 1"),
    ],
)
def test_no_labels(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        read_labels(tmp_path / name)


def test_renaming_outputs() -> None:
    assert rename_outputs(Labels(("a", "b"), "multilabel"), 2, ["cat", "dog"]) == Labels(("cat", "dog"), "multilabel")
    with pytest.raises(ValueError, match=r"^2 labels were given for a network with 4 outputs$"):
        rename_outputs(Labels(), 4, ["cat", "dog"])
    with pytest.raises(ValueError, match=r'put "background" first'):
        rename_outputs(Labels(), 3, ["cat", "dog"])
