"""Class folders as people have them: wrapped by archives, with splits of many names, linked, and without labels."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from effnet.data import Splits, open_data
from effnet.data.folders import list_image_files
from effnet.data.prediction_inputs import list_names

Folders = Callable[..., Path]


def found(splits: Splits) -> dict[str, list[str]]:
    """Of each split the class and file of every image."""
    return {
        split: [f"{images.labels.name(item.label)} {item.image.name}" for item in images.items]  # type: ignore[arg-type, union-attr]
        for split, images in splits.available.items()
    }


TRAIN = {"train": ["cat 1.jpg", "dog 2.jpg"]}
BOTH = TRAIN | {"test": ["cat 3.jpg", "dog 4.jpg"]}
LAYOUTS = {
    "an archive twice": ("photos/photos/cat/1.jpg", "photos/photos/dog/2.jpg"),
    "an archive": ("PetImages/cat/1.jpg", "PetImages/dog/2.jpg", "readme.txt"),
    "three wrappers": ("a/b/c/cat/1.jpg", "a/b/c/dog/2.jpg", "a/b/c/notes.md"),
    "one split": ("archive/training_set/cat/1.jpg", "archive/training_set/dog/2.jpg"),
}
SPLIT_LAYOUTS = {
    "doubly nested": ("{0}_set/{0}_set/cat/", "{1}_set/{1}_set/cat/"),
    "doubly nested, plain": ("{0}/{0}/cat/", "{1}/{1}/cat/"),
    "doubly nested in an archive": ("archive/{0}_set/{0}_set/cat/", "archive/{1}_set/{1}_set/cat/"),
    "wrapped in their own ways": ("{0}_set/archive/cat/", "{1}_set/{1} images/cat/"),
    "a copy beside": ("{0}/cat/", "{1}/cat/", "data/{0}/cat/9.jpg", "data/{0}/dog/9.jpg"),
    "prefixes": ("seg_{0}/seg_{0}/cat/", "seg_{1}/seg_{1}/cat/", "seg_pred/seg_pred/9.jpg"),
    "suffixes": ("{0}2017/cat/", "{1}2017/cat/"),
    "within classes": ("cat/{0}/", "cat/{1}/"),
}
NAMES = (("train", "test"), ("Training", "Testing"), ("TRAIN", "TEST"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_wrapped_classes(layout: str, folders: Folders) -> None:
    assert found(open_data(folders(*LAYOUTS[layout]))) == TRAIN


@pytest.mark.parametrize("names", NAMES, ids=lambda names: names[0])
@pytest.mark.parametrize("layout", SPLIT_LAYOUTS)
def test_splits(layout: str, names: tuple[str, str], folders: Folders) -> None:
    train, test, *more = (each.format(*names) for each in SPLIT_LAYOUTS[layout])
    dogs = train.replace("cat/", "dog/"), test.replace("cat/", "dog/")
    files = f"{train}1.jpg", f"{dogs[0]}2.jpg", f"{test}3.jpg", f"{dogs[1]}4.jpg"
    assert found(open_data(folders(*files, *more))) == BOTH


@pytest.mark.parametrize(
    "names",
    [
        ("training_set", "test_set"),
        ("train-images", "test images"),
        ("TrainSet", "TestSet"),
        ("data_train", "data_test"),
        ("Training Data", "Testing Data"),
        ("train", "test_images"),
        ("split train", "testset"),
    ],
    ids=" ".join,
)
def test_names_of_splits(names: tuple[str, str], folders: Folders) -> None:
    train, test = names
    files = f"{train}/cat/1.jpg", f"{train}/dog/2.jpg", f"{test}/cat/3.jpg", f"{test}/dog/4.jpg"
    assert found(open_data(folders(*files, "notes/x.jpg"))) == BOTH


def test_plain_names_come_first(folders: Folders) -> None:
    root = folders("train/cat/1.jpg", "train/dog/2.jpg", "train_data/x/9.jpg", "train_masks/y/9.jpg")
    assert found(open_data(root)) == TRAIN


def test_classes_beside_a_split_of_them(folders: Folders) -> None:
    root = folders("cat/1.jpg", "dog/2.jpg", "test/cat/3.jpg", "test/dog/4.jpg")
    assert found(open_data(root)) == BOTH


@pytest.mark.parametrize(
    "files",
    [
        ("train/1.jpg", "car/2.jpg"),
        ("valid/1.jpg", "invalid/2.jpg"),
        ("test tube/1.jpg", "flask/2.jpg"),
        ("train_station/1.jpg", "test_strip/2.jpg"),
        ("trainer/1.jpg", "tester/2.jpg"),
        ("cat/images/1.jpg", "dog/images/2.jpg"),
        ("benign/p1/1.jpg", "benign/p2/2.jpg", "malignant/p3/3.jpg", "malignant/p4/4.jpg"),
        ("cat/1.jpg", "cat/more/2.jpg", "dog/1.jpg", "dog/more/2.jpg", "dog/most/3.jpg"),
    ],
    ids=lambda files: files[0],
)
def test_classes_that_they_are_not(files: tuple[str, ...], folders: Folders) -> None:
    train = open_data(folders(*files)).train
    assert train is not None
    assert train.labels.names == tuple(sorted({file.partition("/")[0] for file in files}))
    assert len(train) == len(files)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (("cat/1.jpg", "dog/2.jpg", "test/3.jpg"), "test lies among the classes of .* but is called as a split"),
        (("cat/1.jpg", "dog/2.jpg", "Test_Set/3.jpg"), "Test_Set lies among the classes"),
        (("train/cat/1.jpg", "train/validation/2.jpg", "train/dog/3.jpg"), "validation lies among the classes"),
        (("siteA/cat/1.jpg", "siteA/dog/2.jpg", "siteB/cat/3.jpg", "siteB/dog/4.jpg"), r"same folders \(cat, dog\)"),
        (("c/images/1.jpg", "c/masks/2.jpg", "d/images/3.jpg", "d/masks/4.jpg"), r"same folders \(images, masks\)"),
        (("cat/1.jpg", "dog/2.jpg", "data/cat/1.jpg", "data/dog/2.jpg"), "data holds folders called as the classes"),
        (("cat_train/a/1.jpg", "cat_test/a/1.jpg", "dog_train/a/1.jpg", "dog_test/a/1.jpg"), "such as cat_test"),
        (("train_set/a/1.jpg", "train_data/a/1.jpg"), "both train_data/ and train_set/"),
    ],
)  # fmt: skip
def test_what_is_not_sure_is_refused(files: tuple[str, ...], reason: str, folders: Folders) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        open_data(folders(*files))
    assert "\n" not in str(caught.value)


def test_classes_of_folders_are_said(folders: Folders, caplog: pytest.LogCaptureFixture) -> None:
    open_data(folders("pets/cat/1.jpg", "pets/dog/2.jpg", "cars/3.jpg"))
    assert "1 class hold only folders: 'pets' is one class, with cat, dog in it" in caplog.text


@pytest.mark.parametrize("name", ["test", "testing", "test_set", "val"])
@pytest.mark.parametrize("files", ["9.jpg", "images/9.jpg", "unknown/9.jpg", "{}/9.jpg", "empty.txt", "a.heic"])
def test_images_without_labels_are_passed_over(
    name: str, files: str, folders: Folders, caplog: pytest.LogCaptureFixture
) -> None:
    root = folders("train/cat/1.jpg", "train/dog/2.jpg", f"{name}/{files.format(name)}")
    assert found(open_data(root)) == TRAIN
    assert f"{root / name} has no class folders: passing over its images, which have no labels" in caplog.text


def test_a_split_without_labels_does_not_hide_the_others(folders: Folders) -> None:
    assert list(found(open_data(folders("val/9.jpg", "test/cat/1.jpg", "test/dog/2.jpg")))) == ["test"]
    with pytest.raises(ValueError, match="train has no class folders"):
        open_data(folders("train/1.jpg"))


def test_one_class_of_train_in_a_split(folders: Folders) -> None:
    splits = open_data(folders("train/images/1.jpg", "train/unknown/2.jpg", "test/images/3.jpg"))
    assert found(splits)["test"] == ["images 3.jpg"]
    splits = open_data(folders("more/train/cat/1.jpg", "more/train/dog/2.jpg", "more/test/cat/old/3.jpg",
                               "more/test/cat/new/4.jpg") / "more")  # fmt: skip
    assert found(splits)["test"] == ["cat 4.jpg", "cat 3.jpg"]


def link(path: Path, target: Path | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target, target_is_directory=True)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder with a photo and one in a folder of its own, outside of the data."""
    for name in ("5.jpg", "deep/6.jpg"):
        (tmp_path / "elsewhere" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), "red").save(tmp_path / "elsewhere" / name)
    return tmp_path / "elsewhere"


def test_links_are_followed(folders: Folders, elsewhere: Path) -> None:
    root = folders("cat/1.jpg", "dog/2.jpg")
    link(root / "cat" / "linked", elsewhere)
    link(root / "dog" / "deep" / "er", "../../../elsewhere/deep")
    link(root / "fox", elsewhere)
    expected = ["cat 1.jpg", "cat 5.jpg", "cat 6.jpg", "dog 2.jpg", "dog 6.jpg", "fox 5.jpg", "fox 6.jpg"]
    assert found(open_data(root)) == {"train": expected}
    link(elsewhere.parent / "data link", root)
    assert found(open_data(elsewhere.parent / "data link")) == {"train": expected}
    assert [Path(name).name for name in list_names(str(root / "fox"))] == ["5.jpg", "6.jpg"]
    assert len(list(list_names(f"{root}/**/*.jpg"))) == 4  # each file once
    assert len(list(list_names(f"{root}/*/linked"))) == 2


def test_links_to_splits(folders: Folders, elsewhere: Path) -> None:
    root = folders("real/cat/1.jpg", "real/dog/2.jpg", "data/other.txt")
    link(root / "data" / "train", root / "real")
    link(root / "data" / "test" / "cat", elsewhere / "deep")
    assert found(open_data(root / "data")) == TRAIN | {"test": ["cat 6.jpg"]}


def test_loops_end(folders: Folders, elsewhere: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = folders("cat/1.jpg", "cat/a/2.jpg", "dog/3.jpg")
    link(root / "cat" / "up", "..")
    link(root / "cat" / "self", ".")
    link(root / "cat" / "a" / "over", root.parent)
    link(root / "cat" / "0", "a")  # found where it lies
    link(root / "all", ".")
    link(root / "round", "round")
    link(elsewhere / "back", root)
    link(elsewhere / "deep" / "first", elsewhere)
    link(root / "dog" / "x", elsewhere)
    link(root / "dog" / "y", elsewhere / "deep")  # reached already
    with pytest.raises(ValueError, match=r"round is a link to round, which does not exist"):
        open_data(root)
    (root / "round").unlink()
    splits = open_data(root)
    assert found(splits)["train"][:2] == ["cat 1.jpg", "cat 2.jpg"]
    assert [item.name for item in splits.train.items][1] == "cat/a/2.jpg"  # type: ignore[union-attr]
    assert sorted(found(splits)["train"][2:]) == ["dog 3.jpg", "dog 5.jpg", "dog 6.jpg"]
    assert "up is a link to a folder that it lies in: not followed" in caplog.text
    assert sorted(path.name for path in list_image_files(root)) == [f"{n}.jpg" for n in (1, 2, 3, 5, 6)]
    assert len(list(list_names(f"{root}/**"))) == 5


def test_mutual_links_end(folders: Folders) -> None:
    names = [f"m{number}" for number in range(12)]
    root = folders(*(f"all/{name}/1.jpg" for name in names))
    for name in names:
        for other in names:
            link(root / "all" / name / other, f"../{other}")
    for name in names[:3]:  # each class sees the others once
        assert len(list(list_image_files(root / "all" / name))) == 12
    assert len(list(list_image_files(root))) == 12


def test_hidden_folders_may_be_linked(folders: Folders) -> None:
    root = folders("cat/1.jpg", ".store/cat/5.jpg", "dog/2.jpg", "dog/.cache/6.jpg")
    link(root / "cat" / "stored", "../.store/cat")
    link(root / "dog" / "cached", ".cache")
    assert found(open_data(root)) == {"train": ["cat 1.jpg", "cat 5.jpg", "dog 2.jpg", "dog 6.jpg"]}


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_folders_without_permission_are_no_empty_ones(folders: Folders) -> None:
    root = folders("cat/1.jpg", "cat/a/2.jpg", "dog/3.jpg")
    (root / "cat" / "a").chmod(0)
    with pytest.raises(PermissionError):
        open_data(root)


def test_a_class_whose_link_is_broken(folders: Folders) -> None:
    root = folders("cat/1.jpg", "dog/2.jpg")
    link(root / "fox", "/not/mounted")
    with pytest.raises(ValueError, match="fox is a link to /not/mounted, which does not exist"):
        open_data(root)
    (root / "fox").unlink()
    link(root / "readme.txt", "/not/mounted.txt")
    link(root / "cat" / "3.jpg", "/not/mounted.jpg")  # an image that cannot be read, which is reported
    assert found(open_data(root)) == {"train": ["cat 1.jpg", "cat 3.jpg", "dog 2.jpg"]}


def test_what_was_chosen_is_said(folders: Folders, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "effnet"):
        open_data(folders("x/train/cat/1.jpg", "x/train/dog/2.jpg", "x/notes/9.jpg"))
    assert "x: the classes are the folders in it" in caplog.text
    assert "using train, passing over notes" in caplog.text


@pytest.mark.parametrize(
    ("files", "root", "expected"),
    [
        (("cat/1.jpg",), "", {"train": ["cat 1.jpg"]}),
        (("cat/1.jpg", "fox/2.jpg"), "", {"train": ["cat 1.jpg", "fox 2.jpg"]}),
        (("cat/1.jpg", "dog/", "fox/readme.txt"), "", {"train": ["cat 1.jpg"]}),
        (("cat/1.jpg",), "cat", {"train": ["cat 1.jpg"]}),
        (("cat/a/1.jpg", "cat/b/2.jpg"), "cat", {"train": ["cat 1.jpg", "cat 2.jpg"]}),
        (("cat/a/1.jpg", "cat/b/2.jpg"), "", {"train": ["cat 1.jpg", "cat 2.jpg"]}),
        (("archive/cat/1.jpg",), "", {"train": ["cat 1.jpg"]}),
        (("archive/cat/1.jpg",), "archive/cat", {"train": ["cat 1.jpg"]}),
        (("test/dog/1.jpg",), "", {"test": ["dog 1.jpg"]}),
        (("test/dog/1.jpg",), "test", {"train": ["dog 1.jpg"]}),
        (("train/cat/1.jpg", "val/fox/2.jpg"), "", {"train": ["cat 1.jpg"], "val": ["fox 2.jpg"]}),
        (("train/cat/1.jpg", "test/x.jpg"), "", {"train": ["cat 1.jpg"]}),
        (("cat/1.jpg", "dog/2.jpg", "test/cat/3.jpg"), "", TRAIN | {"test": ["cat 3.jpg"]}),
        (("cat/a/1.jpg", "cat/b/2.jpg", "dog/a/3.jpg", "dog/b/4.jpg"), "",
         {"train": ["cat 1.jpg", "cat 2.jpg", "dog 3.jpg", "dog 4.jpg"]}),
    ],
)  # fmt: skip
def test_some_classes_of_a_model(
    files: tuple[str, ...], root: str, expected: dict[str, list[str]], folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_class = {"cat", "dog", "fox"}.__contains__
    folder = folders(*files) / root
    assert found(open_data(folder, is_class=is_class)) == expected
    monkeypatch.chdir(folder)
    assert found(open_data(".", is_class=is_class)) == expected


def test_a_model_without_such_classes(folders: Folders) -> None:
    with pytest.raises(ValueError, match="lies among the classes"):
        open_data(folders("cat/1.jpg", "test/2.jpg"), is_class={"dog"}.__contains__)
    assert len(open_data(folders(), is_class={"cat", "test"}.__contains__).train.labels.names) == 2  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="has no images"):
        open_data(folders("empty/cat/") / "empty", is_class={"cat"}.__contains__)
