"""Tables as competitions hand them out and as people write them."""

from __future__ import annotations

import logging
import unicodedata
from pathlib import Path

import pytest

from effnet.data import open_data
from effnet.data.class_names import describe_similar_names
from effnet.data.dataset import ImageDataset
from effnet.data.tables.table import is_table, open_table, open_unlabeled_table
from effnet.metadata import Labels


def touch_files(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def table(root: Path, text: str, name: str = "train.csv") -> Path:
    (root / name).write_text(text)
    return root / name


def train_of(path: Path, task: str | None = None) -> ImageDataset:
    return open_table(path, task).train  # type: ignore[return-value]


FOUR = ("1.jpg", "2.jpg", "3.jpg", "4.jpg")


def test_paths_and_labels(tmp_path: Path) -> None:
    touch_files(tmp_path, *FOUR)
    splits = open_table(table(tmp_path, "path,label\n1.jpg,wasp\n2.jpg,ant\n\n3.jpg,wasp\n4.jpg,ant\n"))
    assert splits.val is splits.test is None
    assert splits.train.labels == Labels(("ant", "wasp"))
    assert splits.train.targets.tolist() == [1, 0, 1, 0]
    assert [item.name for item in splits.train.items] == list(FOUR)
    assert [item.image for item in splits.train.items] == [tmp_path / name for name in FOUR]
    assert [(item.weight, item.group, item.fold) for item in splits.train.items] == [(1.0, "", None)] * 4


def test_every_column(tmp_path: Path) -> None:
    touch_files(tmp_path, *FOUR, "5.jpg", "6.jpg")
    rows = ("1.jpg,a,0,p1,0.5,train", "2.jpg,a,1.0,p2,,", "3.jpg,b,-1,,2,training", "4.jpg,b,,p2,1,Train")
    text = "\n".join(("path,label,fold,patient_id,weight,split", *rows, "5.jpg,a,,,,valid", "6.jpg,,,,,test"))
    splits = open_table(table(tmp_path, text))
    assert splits.test is None  # its label is not known
    assert [item.fold for item in splits.train.items] == [0, 1, None, None]
    assert [item.group for item in splits.train.items] == ["p1", "p2", "", "p2"]
    assert [item.weight for item in splits.train.items] == [0.5, 1.0, 2.0, 1.0]
    assert [item.name for item in splits.val.items] == ["5.jpg"]


@pytest.mark.parametrize("head", ["image,target", "image_id,class", "Filename,Label", "id,label", "id,breed"])
def test_names_that_competitions_use(tmp_path: Path, head: str, caplog: pytest.LogCaptureFixture) -> None:
    touch_files(tmp_path, *(f"train/{name}" for name in FOUR))
    with caplog.at_level(logging.INFO, "effnet"):
        train = train_of(table(tmp_path, f"{head}\n1,a\n2,b\n3,a\n4,b\n"))
    assert train.labels.names == ("a", "b")
    assert [item.image for item in train.items] == [tmp_path / "train" / name for name in FOUR]
    assert [item.name for item in train.items] == ["1", "2", "3", "4"]
    assert ("'breed'" in caplog.text) == head.endswith("breed")


@pytest.mark.parametrize("folder", ["images", "train_images", "jpegs"])
def test_a_folder_beside_it_and_endings(tmp_path: Path, folder: str) -> None:
    touch_files(tmp_path, f"{folder}/1.png", f"{folder}/sub/2.JPEG", f"{folder}/3.v2.jpg", "4.tiff")
    train = train_of(table(tmp_path, "path,label\n1,a\nsub/2,b\n3.v2,a\n4,b\n"))
    found = [item.image.relative_to(tmp_path).as_posix() for item in train.items]  # type: ignore[union-attr]
    assert found == [f"{folder}/1.png", f"{folder}/sub/2.JPEG", f"{folder}/3.v2.jpg", "4.tiff"]


def test_test_images_are_not_used_as_training_images(tmp_path: Path) -> None:
    touch_files(tmp_path, "train/1.jpg", "test/1.jpg", "test/2.jpg")
    with pytest.raises(ValueError, match=r"2 of the 3 images that .*train\.csv names do not exist: 2, 3 \(searched"):
        open_table(table(tmp_path, "path,label\n1,a\n2,a\n3,a\n"), "multilabel")


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"\xef\xbb\xbfpath,label\r\n1.jpg,a\r\n2.jpg,b\r\n3.jpg,a\r\n4.jpg,b\r\n", "x.csv"),
        (b"path;label\n1.jpg;a\n2.jpg;b\n3.jpg;a\n4.jpg;b", "x.csv"),
        (b"path\tlabel\n1.jpg\ta\n2.jpg\tb\n3.jpg\ta\n4.jpg\tb\n", "x.tsv"),
        (b'"path","label"\n"1.jpg","a"\n 2.jpg , b \n"3.jpg",a\n4.jpg,b\n', "x.csv"),
    ],
    ids=["BOM and CRLF", "semicolons", "tabs", "quotes and spaces"],
)
def test_ways_of_writing_it(tmp_path: Path, content: bytes, name: str) -> None:
    touch_files(tmp_path, *FOUR)
    (tmp_path / name).write_bytes(content)
    train = train_of(tmp_path / name)
    assert (train.labels.names, train.targets.tolist()) == (("a", "b"), [0, 1, 0, 1])
    assert is_table(tmp_path / name)


def test_numbers_are_sorted_by_number(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch_files(tmp_path, *FOUR, "5.jpg", "6.jpg")
    cells = ("10", "2", "10", "2", "1", "1")
    rows = "".join(f"{number}.jpg,{cell}\n" for number, cell in enumerate(cells, start=1))
    train = train_of(table(tmp_path, "path,label\n" + rows))
    assert train.labels.names == ("1", "2", "10")
    assert train.targets.tolist() == [2, 1, 2, 1, 0, 0]
    with caplog.at_level(logging.INFO, "effnet"):
        floats = train_of(table(tmp_path, "path,label\n" + rows.replace("\n", ".0\n")))
    assert floats.labels.names == ("1", "2", "10")
    assert "the whole numbers in 'label', written as 10.0, are classes" in caplog.text
    names = train_of(table(tmp_path, "path,label\n" + rows.replace("\n", "_0\n")))
    assert names.labels.names == ("10_0", "1_0", "2_0")


@pytest.mark.parametrize(
    ("head", "cells", "task"),
    [
        ("label", ("a|b", "b", "", "c|a"), None),
        ("label", ("b;a", "b", "", "a; c"), None),
        ("label", ("a b", "b", "", "a c"), "multilabel"),
        ("tags", ("a b", "b", "", "c a"), None),
    ],
)
def test_several_labels_in_a_cell(tmp_path: Path, head: str, cells: tuple[str, ...], task: str | None) -> None:
    touch_files(tmp_path, *FOUR)
    rows = "".join(f"{name},{cell}\n" for name, cell in zip(FOUR, cells, strict=True))
    train = train_of(table(tmp_path, f"path,{head}\n{rows}"), task)
    assert train.labels == Labels(("a", "b", "c"), "multilabel")
    assert [item.label for item in train.items] == [(0, 1), (1,), (), (0, 2)]
    assert train.target_matrix.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1]]


def test_a_name_may_have_spaces(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch_files(tmp_path, *FOUR)
    text = "path,label\n1.jpg,golden retriever\n2.jpg,pug\n3.jpg,golden retriever\n4.jpg,pug"
    train = train_of(table(tmp_path, text))
    assert train.labels == Labels(("golden retriever", "pug"))
    assert caplog.text == ""
    touch_files(tmp_path, "5.jpg", "6.jpg", "7.jpg")
    text = "path,label\n1.jpg,a b\n2.jpg,a\n3.jpg,b\n4.jpg,a b\n5.jpg,a\n6.jpg,b\n"
    assert train_of(table(tmp_path, text)).labels.names == ("a", "a b", "b")
    assert "--task multilabel" in caplog.text


def test_a_column_a_class(tmp_path: Path) -> None:
    touch_files(tmp_path, *FOUR)
    head = "image_id,rust,scab,age\n"
    several = train_of(table(tmp_path, head + "1,1,0,7\n2,1,1,7\n3,0,0,8\n4,0,1,8\n"))
    assert several.labels == Labels(("rust", "scab"), "multilabel")
    assert [item.label for item in several.items] == [(0,), (0, 1), (), (1,)]
    one = train_of(table(tmp_path, head + "1,1.0,0.0,7\n2,1,0,7\n3,0,1,8\n4,0,1,8\n"))
    assert one.labels == Labels(("rust", "scab"))
    assert one.targets.tolist() == [0, 0, 1, 1]
    assert train_of(table(tmp_path, head + "1,1,0,7\n2,1,0,7\n3,0,1,8\n"), "multilabel").labels.task == "multilabel"


def test_values(tmp_path: Path) -> None:
    touch_files(tmp_path, *FOUR)
    one = train_of(table(tmp_path, "path,label\n1.jpg,1.5\n2.jpg,-2\n3.jpg,1e3\n4.jpg,0\n"), "regression")
    assert one.labels == Labels(("label",), "regression")
    assert [item.label for item in one.items] == [(1.5,), (-2.0,), (1000.0,), (0.0,)]
    text = "path,x,y,site\n1.jpg,1,2,a\n2.jpg,3,4,a\n3.jpg,5,6,b\n4.jpg,7,8.5,b\n"
    two = train_of(table(tmp_path, text), "regression")
    assert two.labels == Labels(("x", "y"), "regression")
    assert two.items[3].label == (7.0, 8.5)


@pytest.mark.parametrize(
    ("text", "task", "reason"),
    [
        ("", None, "is empty: its first line should be path,label"),
        ("path,label\n", None, "but no rows below"),
        ("pathh,label\n1.jpg,a\n", None, r"no column path .*did you mean path\?"),
        ("1.jpg,a\n2.jpg,b\n", None, "has no headings: its first line should be path,label"),
        ("path,lable,age\n1.jpg,a,3\n2.jpg,b,4\n", None, r"no column label .* path, lable, age; did you mean label\?"),
        ("path,label,label\n1.jpg,a,b\n", None, "two columns 'label'"),
        ("path,label\n1.jpg,a,b\n", None, "line 2: 3 cells under 2 headings"),
        ("path,label\n1.jpg,a\n1.jpg,b\n", None, r"1\.jpg is in line 2 and in line 3"),
        ("path,label\n1.jpg,a\n2.jpg,a\n3.jpg,b\n", None, "the label 'b' occurs only once"),
        ("path,label\n1.jpg,1\n2.jpg,2\n3.jpg,3\n", None, "labels '1', '2', '3' occur only once.*--task regression"),
        ("path,label\n1.jpg,0.25\n2.jpg,0.5\n3.jpg,7\n", None, r"such as 0\.25, 3 different ones: --task regression"),
        ("path,label\n1.jpg,0.25\n2.jpg,high\n", "regression", "line 3: 'high' is not a number"),
        ("path,label\n1.jpg,a\n2.jpg,\n3.jpg,a\n4.jpg,b\n1x.jpg,b\n", None, r"line 3: 2\.jpg has no label"),
        ("path,label\n1.jpg,a\n2.jpg,b\n", "many", "task must be one of classification, multilabel, regression"),
        ("path,label,weight\n1.jpg,a,-1\n2.jpg,a,1\n3.jpg,b,1\n4.jpg,b,1\n", None, "line 2: a weight .* not '-1'"),
        ("path,label,fold\n1.jpg,a,one\n2.jpg,a,1\n3.jpg,b,1\n4.jpg,b,1\n", None, "line 2: a fold .* not 'one'"),
        ("path,label,split\n1.jpg,a,dev\n2.jpg,a,\n3.jpg,b,\n4.jpg,b,\n", None, "line 2: a split .* not 'dev'"),
        ("path,label,split\n1.jpg,a,\n2.jpg,a,\n3.jpg,b,val\n4.jpg,b,val\n", None, "'b' is on no training image"),
        ("path,label\n1.jpg,a\n9.jpg,a\n8.jpg,b\n7.jpg,b\n6.jpg,b\n", None, r"4 of the 5 .*: 9\.jpg, 8\.jpg"),
    ],
)  # fmt: skip
def test_refusals(tmp_path: Path, text: str, task: str | None, reason: str) -> None:
    touch_files(tmp_path, *FOUR)
    with pytest.raises(ValueError, match=reason) as caught:
        open_table(table(tmp_path, text), task)
    assert "\n" not in str(caught.value)


def test_other_refusals(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(FileNotFoundError):
        open_table(tmp_path / "no.csv")
    (tmp_path / "latin.csv").write_bytes("path,label\nä.jpg,a\n".encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8 text"):
        open_table(tmp_path / "latin.csv")
    touch_files(tmp_path, *FOUR)
    text = "path,label,wieght,site\n1.jpg,a,1,x\n2.jpg,a,1,x\n3.jpg,b,1,x\n4.jpg,b,1,x\n"
    with caplog.at_level(logging.INFO, "effnet"):
        train_of(table(tmp_path, text))
    assert "ignoring the columns wieght (rename it if it is meant to be weight), site" in caplog.text


def test_multilabel_warns_of_a_label_that_occurs_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch_files(tmp_path, *FOUR)
    train_of(table(tmp_path, "path,label\n1.jpg,a|b\n2.jpg,a|c\n3.jpg,a|b\n4.jpg,a\n"))
    assert "'c' occurs only once" in caplog.text


def test_unlabeled(tmp_path: Path) -> None:
    touch_files(tmp_path, "train/1.jpg", "train/2.jpg", "test/1.jpg", "test/2.png")
    path = table(tmp_path, "image_id,width\n2,30\n1,40\n", "sample_submission.csv")
    assert open_unlabeled_table(path) == [("2", tmp_path / "test/2.png"), ("1", tmp_path / "test/1.jpg")]
    with pytest.raises(ValueError, match="1 of the 1 images"):
        open_unlabeled_table(table(tmp_path, "id\n3\n", "test.csv"))


def write_cells(root: Path, head: str, *cells: str) -> Path:
    """A table of as many images, with the cells below ``head`` in quotes."""
    touch_files(root, *(f"{number}.jpg" for number in range(len(cells))))
    quoted = (cell.replace('"', '""') for cell in cells)
    return table(root, f"path,{head}\n" + "".join(f'{number}.jpg,"{cell}"\n' for number, cell in enumerate(quoted)))


@pytest.mark.parametrize(
    "cells",
    [
        ("['disc', 'thing']", "['thing']", "[]", "['disc']"),
        ('["disc", "thing"]', '["thing"]', "[]", '["disc"]'),
        ("('disc', 'thing')", "('thing',)", "()", "('disc',)"),
        ("{'thing', 'disc'}", "{'thing'}", "[]", "{'disc'}"),
        ("['disc' 'thing']", "['thing']", "[]", "['disc']"),
        ("['thing', 'disc', 'disc']", "thing", "", "['disc']"),
        ("[ 'disc' , 'thing ' ]", "['thing']", "", "disc"),
    ],
    ids=["Python", "JSON", "tuples", "sets", "numpy", "mixed", "spaces"],
)
@pytest.mark.parametrize(("head", "task"), [("label", None), ("labels", None), ("label", "multilabel")])
def test_lists_in_cells(tmp_path: Path, cells: tuple[str, ...], head: str, task: str | None) -> None:
    train = train_of(write_cells(tmp_path, head, *cells), task)
    assert train.labels == Labels(("disc", "thing"), "multilabel")
    assert [item.label for item in train.items] == [(0, 1), (1,), (), (0,)]


def test_lists_of_numbers_and_of_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    numbers = train_of(write_cells(tmp_path, "label", "[3, 14]", "[14]", "[3 14]", "[3.0]"))
    assert numbers.labels == Labels(("3", "14"), "multilabel")
    assert [item.label for item in numbers.items] == [(0, 1), (1,), (0, 1), (0,)]
    with caplog.at_level(logging.INFO, "effnet"):
        single = train_of(write_cells(tmp_path, "label", "['a']", "['b']", "a", "['b']"))
    assert (single.labels, single.targets.tolist()) == (Labels(("a", "b")), [0, 1, 0, 1])
    assert "every list in 'label' has one label" in caplog.text
    assert train_of(write_cells(tmp_path, "label", *["(unknown)", "maize (corn)"] * 2)).labels.task == "classification"


@pytest.mark.parametrize(
    ("cells", "task", "reason"),
    [
        (("[disc, thing]", "[disc]"), None, r"line 2: '\[disc, thing\]' in the column 'label' is not a list"),
        (("['disc', 'thing'", "['disc']"), None, "line 2: .* is not a list: write"),
        (("[wasp]", "[wasp]"), None, "is not a list"),
        (("[['a'], ['b']]", "a"), None, "is not a list"),
        (("[None]", "a"), None, "is not a list"),
        (("['a', '']", "a"), None, "is not a list"),
        (('{"label": "a"}', "a"), None, "is not a list"),
        (("a", "[" * 5000 + "]" * 5000), None, "line 3: .* is not a list"),
        (("[__import__('os').system('false')]", "a"), None, "is not a list"),
        (("[0, 1, 1]", "[1, 0, 0]"), None, "holds lists of 0 and 1"),
        (("[0 1 1]", "[1 0 0]"), None, "holds lists of 0 and 1"),
        (("['a', 'b']", "['a']"), "classification", "line 2: 2 labels: --task multilabel allows any number"),
        (("[0.5, 2]", "[1, 2]"), "regression", r"'\[0.5, 2\]' is not a number"),
    ],
)  # fmt: skip
def test_brackets_that_are_no_labels(tmp_path: Path, cells: tuple[str, ...], task: str | None, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        open_table(write_cells(tmp_path, "label", *cells), task)
    assert "\n" not in str(caught.value)


def test_a_list_without_quotes_says_so(tmp_path: Path) -> None:
    touch_files(tmp_path, *FOUR)
    for text in ("1.jpg,['disc', 'thing']\n", "1.jpg,0,5\n"):
        with pytest.raises(ValueError, match=r"3 cells under 2 headings: a cell with ',' in it must be in \"quotes\""):
            open_table(table(tmp_path, f"path,label\n{text}"))


@pytest.mark.parametrize(("head", "task"), [("tags", None), ("label", "multilabel")])
def test_commas_between_labels(tmp_path: Path, head: str, task: str | None) -> None:
    cells = ("golden retriever, pug", "pug", "golden retriever", "pug ,golden retriever")
    train = train_of(write_cells(tmp_path, head, *cells), task)
    assert train.labels == Labels(("golden retriever", "pug"), "multilabel")
    assert [item.label for item in train.items] == [(0, 1), (1,), (0,), (0, 1)]


def test_commas_may_be_in_a_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert train_of(write_cells(tmp_path, "label", *["tench, Tinca tinca", "pug"] * 2)).labels.task == "classification"
    assert caplog.text == ""
    train_of(write_cells(tmp_path, "label", *["a,b", "a", "b"] * 2))
    assert "'a,b' is read as one label; if it is several, use --task multilabel" in caplog.text


@pytest.mark.parametrize(
    "name", [r"images\{}.jpg", r".\images\{}.jpg", "IMAGES/{}.JPG", "Images\\{}", "./images/{}.JPEG.jpg", "é/{}.jpg"]
)
@pytest.mark.parametrize("folder", ["", "train/"])
def test_other_spellings_of_paths(tmp_path: Path, name: str, folder: str, caplog: pytest.LogCaptureFixture) -> None:
    extension = ".JPEG.jpg" if "JPEG" in name else ".jpg"
    inner = unicodedata.normalize("NFD", "é") if "é" in name else "images"
    touch_files(tmp_path, *(f"{folder}{inner}/Img {number}{extension}" for number in (1, 2)))
    rows = "".join(f"{name.format(f'img {number}')},{label}\n" for number in (1, 2) for label in "a")
    with caplog.at_level(logging.INFO, "effnet"):
        train = train_of(table(tmp_path, f"path,label\n{rows}"))
    expected = [tmp_path / f"{folder}{inner}" / f"Img {number}{extension}" for number in (1, 2)]
    assert [item.image for item in train.items] == expected
    assert "2 images are found by another spelling" in caplog.text


def test_spellings_that_are_not_sure(tmp_path: Path) -> None:
    touch_files(tmp_path, "a.JPG", "A.jpg", "x/B.jpg", "c.txt")
    for name in ("a.jpg", "..\\x", "x", "C.jpg", "c"):
        with pytest.raises(ValueError, match="1 of the 1 images"):
            open_table(table(tmp_path, f"path,label\n{name},a\n"), "multilabel")
    exact = train_of(table(tmp_path, "path,label\na.JPG,a\nA.jpg,a\n"))
    assert [item.image for item in exact.items] == [tmp_path / "a.JPG", tmp_path / "A.jpg"]


@pytest.mark.parametrize("name", ["C:\\Users\\me\\1.jpg", "/home/me/1.jpg", "\\\\server\\1.jpg", "~/1.jpg"])
def test_paths_of_another_machine(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="they are paths of another machine; write them relative to the table"):
        open_table(table(tmp_path, f"path,label\n{name},a\n"), "multilabel")


@pytest.mark.parametrize(
    "url", ["https://a.b/1.jpg", "s3://bucket/1.jpg", "file:///tmp/1.jpg", "data:image/png;base64,x"]
)
def test_urls_say_what_they_are(tmp_path: Path, url: str) -> None:
    path = table(tmp_path, f'path,label\n"{url}",a\n"{url}2",a\n')
    for opened in (open_table, open_unlabeled_table):
        with pytest.raises(ValueError, match=r"line 2: .* is a URL: download the images"):
            opened(path)
    with pytest.raises(ValueError, match="has no column path; 'photo' holds URLs"):
        open_table(table(tmp_path, f'photo,label\n"{url}",a\n'))


@pytest.mark.parametrize(
    "content",
    [
        b"path,label,,\r\n1.jpg,a,,\r\n2.jpg,b,,\r\n3.jpg,a,,\r\n4.jpg,b,,\r\n,,,\r\n,,,\r\n",
        b"path,label\n1.jpg,a,,\n2.jpg,b\n3.jpg,a,\n4.jpg,b\n",
        b"path,,label,\n1.jpg,,a,\n2.jpg,,b,\n3.jpg,,a,\n4.jpg,,b,\n",
        b"sep=;\r\npath;label\r\n1.jpg;a\r\n2.jpg;b\r\n3.jpg;a\r\n4.jpg;b\r\n",
        b"\xef\xbb\xbfsep=\t\npath\tlabel\n1.jpg\ta\n2.jpg\tb\n3.jpg\ta\n4.jpg\tb\n",
        b"SEP=|\npath|label\n1.jpg|a\n2.jpg|b\n3.jpg|a\n4.jpg|b\n",
        b'"sep=,"\npath,label\n1.jpg,a\n2.jpg,b\n3.jpg,a\n4.jpg,b\n',
        "path\tlabel\r\n1.jpg\ta\r\n2.jpg\tb\r\n3.jpg\ta\r\n4.jpg\tb\r\n".encode("utf-16"),
    ],
    ids=["trailing", "ragged", "within", "sep=;", "BOM and sep=TAB", "SEP=|", "quoted sep", "UTF-16"],
)
def test_what_excel_writes(tmp_path: Path, content: bytes) -> None:
    touch_files(tmp_path, *FOUR)
    (tmp_path / "x.csv").write_bytes(content)
    train = train_of(tmp_path / "x.csv")
    assert (train.labels.names, train.targets.tolist()) == (("a", "b"), [0, 1, 0, 1])


def test_lines_are_counted_after_a_separator(tmp_path: Path) -> None:
    touch_files(tmp_path, *FOUR)
    with pytest.raises(ValueError, match="line 4: 1 cells under 2 headings"):
        open_table(table(tmp_path, "sep=;\npath;label\n1.jpg;a\n2.jpg\n"))
    with pytest.raises(ValueError, match="line 2: 3 cells under 2 headings"):
        open_table(table(tmp_path, "path,label\n1.jpg,a,b\n"))


def test_decimal_commas(tmp_path: Path) -> None:
    touch_files(tmp_path, *FOUR)
    text = "path;label;weight\n1.jpg;0,5;0,25\n2.jpg;-1,125;1\n3.jpg;12,;1\n4.jpg;1,250;2,0\n".replace("12,;", "12;")
    train = train_of(table(tmp_path, text), "regression")
    assert [item.label for item in train.items] == [(0.5,), (-1.125,), (12.0,), (1.25,)]
    assert [item.weight for item in train.items] == [0.25, 1.0, 1.0, 2.0]
    with pytest.raises(ValueError, match=r"holds numbers such as 0\.5, 4 different ones: --task regression"):
        open_table(table(tmp_path, text))
    with pytest.raises(ValueError, match=r"'1,234' is not a number, .*: write it with a point, or without"):
        open_table(table(tmp_path, "path;label\n1.jpg;1,234\n2.jpg;3\n"), "regression")
    with pytest.raises(ValueError, match="a weight must be a number of at least 0, not '1,000'"):
        open_table(table(tmp_path, text.replace("0,25", "1,000")), "regression")
    columns = train_of(table(tmp_path, "path;x;y\n1.jpg;0,5;1\n2.jpg;1,5;2\n"), "regression")
    assert columns.target_matrix.tolist() == [[0.5, 1], [1.5, 2]]


@pytest.mark.parametrize("cell", ["nan", "NaN", "NULL", "#N/A", "#REF!", "<NA>"])
def test_missing_values_are_remarked(tmp_path: Path, cell: str, caplog: pytest.LogCaptureFixture) -> None:
    train_of(write_cells(tmp_path, "label", cell, cell, "none", "none"))
    assert f"the label {cell!r} is read as a class" in caplog.text


def test_spellings_of_classes_are_remarked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_cells(tmp_path, "label", *["Disc", "disc", "golden retriever", "golden_retriever", "c", "c++"] * 2)
    assert len(open_data(path).train.labels.names) == 6  # type: ignore[union-attr]
    assert "the classes 'Disc' and 'disc' differ in their spelling only" in caplog.text
    assert "'golden retriever' and 'golden_retriever'" in caplog.text
    assert caplog.text.count("differ in their") == 2
    caplog.clear()
    for name in ("Cat", "cat ", "dog"):
        touch_files(tmp_path, f"photos/{name}/1.jpg")
    open_data(tmp_path / "photos")
    assert "the classes 'Cat' and 'cat ' differ" in caplog.text
    with pytest.raises(ValueError, match="is no table"):
        open_data(tmp_path / "photos", "regression")
    assert describe_similar_names(("1", "-1", "10", "a-b", "ab")) == []
