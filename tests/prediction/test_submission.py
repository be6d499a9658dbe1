"""Submissions: ids, rows and columns are those of the sample submission if there is one."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnet.data import ImageError, read_image
from effnet.data.tables.table_reader import read_table
from effnet.metadata import Labels
from effnet.prediction.submission import submission_format, write_submission


class Known:
    """Predicts by the image's brightness: dark, middle or light."""

    def __init__(self, names: tuple[str, ...] = ("dark", "middle", "light"), task: str = "classification") -> None:
        self.labels, self.classes = Labels(names, task), len(names)

    def predict_scores(self, named: list[tuple[str, Path]]) -> Iterator[tuple[str, np.ndarray | ImageError]]:
        for name, path in named:
            try:
                bright = np.asarray(read_image(path)).mean() / 255
            except ImageError as error:
                yield name, error
                continue
            yield name, np.array({1: [bright], 2: [1 - bright, bright]}.get(self.classes) or [
                max(0, 1 - 2 * bright), 1 - abs(2 * bright - 1), max(0, 2 * bright - 1)])  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four gray images: 0 and 1 dark, 2 middle, 3 light."""
    (tmp_path / "test").mkdir()
    for number, grey in enumerate((0, 51, 127, 255)):
        Image.new("RGB", (8, 8), (grey,) * 3).save(tmp_path / f"test/{number}.png")
    (tmp_path / "test.csv").write_text("image_id,width\n3,8\n1,8\n2,8\n0,8\n")
    return tmp_path


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def submitted(root: Path, model: Known | None = None, **options: bool) -> list[list[str]]:
    write_submission(root / "test.csv", model or Known(), root / "out.csv", force=True, **options)  # type: ignore[arg-type]
    return rows(root / "out.csv")


def test_labels(root: Path) -> None:
    steps: list[tuple[int, int]] = []
    done = write_submission(root / "test.csv", Known(), root / "new.csv", progress=lambda *step: steps.append(step))  # type: ignore[arg-type]
    assert rows(root / "new.csv") == [
        ["image_id", "label"],
        ["3", "light"],
        ["1", "dark"],
        ["2", "middle"],
        ["0", "dark"],
    ]
    assert (done.rows, done.columns, done.sample, done.unreadable) == (4, ("image_id", "label"), None, ())
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_probabilities(root: Path) -> None:
    head, *found = submitted(root, probabilities=True)
    assert head == ["image_id", "dark", "middle", "light"]
    assert [float(cell) for cell in found[1][1:]] == pytest.approx([0.6, 0.4, 0])


def test_multilabel_and_regression(root: Path) -> None:
    assert submitted(root, Known(task="multilabel")) == [
        ["image_id", "label"], ["3", "light"], ["1", "dark"], ["2", "middle"], ["0", "dark"]
    ]  # fmt: skip
    assert submitted(root, Known(("x", "y"), "multilabel"))[2:] == [["1", "x"], ["2", "x"], ["0", "x"]]
    head, *found = submitted(root, Known(("age",), "regression"))
    assert head == ["image_id", "age"]
    assert [float(cell) for _, cell in found] == pytest.approx([1, 0.2, 127 / 255, 0], abs=1e-6)


def test_sample_decides_the_format(root: Path) -> None:
    sample = root / "sample_submission.csv"
    sample.write_text("id,light,dark\n0.png,0,1\n1.png,0,1\n2.png,0,1\n3.png,0,1\n")
    head, *found = submitted(root)
    assert head == ["id", "light", "dark"]
    assert [name for name, *_ in found] == ["0.png", "1.png", "2.png", "3.png"]
    assert [float(cell) for cell in found[1][1:]] == pytest.approx([0, 0.6])
    sample.write_text("image_id,target\n1,dark\n2,dark\n")
    assert submitted(root) == [["image_id", "target"], ["1", "dark"], ["2", "middle"]]
    two = Known(("0", "1"))
    sample.write_text("image_id,target\n1,0.5\n3,0.5\n")
    assert [float(cell) for _, cell in submitted(root, two)[1:]] == pytest.approx([0.2, 1])
    sample.write_text("image_id,target\n1,0\n3,0\n")
    assert submitted(root, two) == [["image_id", "target"], ["1", "0"], ["3", "1"]]
    assert submitted(root, two, probabilities=True)[1][1] == "0.2"
    sample.write_text("image_id,target\n3,0\n")
    assert submitted(root, Known(("age",), "regression")) == [["image_id", "target"], ["3", "1"]]


def test_sample_as_the_table(root: Path) -> None:
    sample = root / "sample_submission.csv"
    sample.write_text("id,label\n2,x\n3,x\n")
    done = write_submission(sample, Known(), root / "out.csv")  # type: ignore[arg-type]
    assert rows(root / "out.csv") == [["id", "label"], ["2", "middle"], ["3", "light"]]
    assert done.sample == sample


def test_unreadable_image_gets_the_mean(root: Path) -> None:
    (root / "test/0.png").write_bytes(b"nothing")
    done = write_submission(root / "test.csv", Known(), root / "out.csv", probabilities=True)  # type: ignore[arg-type]
    found = {name: [float(cell) for cell in cells] for name, *cells in rows(root / "out.csv")[1:]}
    assert found["0"] == pytest.approx(np.mean([found["1"], found["2"], found["3"]], 0), abs=1e-6)
    assert len(done.unreadable) == 1
    assert "0.png is not a" in done.unreadable[0]
    for number in range(1, 4):
        (root / f"test/{number}.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="none of the 4 images could be read"):
        submitted(root)


def test_errors(root: Path) -> None:
    (root / "there.csv").write_text("mine")
    with pytest.raises(FileExistsError, match="--force"):
        write_submission(root / "test.csv", Known(), root / "there.csv")  # type: ignore[arg-type]
    assert (root / "there.csv").read_text() == "mine"
    with pytest.raises(ValueError, match=r"must end in \.csv, not in \.txt"):
        write_submission(root / "test.csv", Known(), root / "out.txt")  # type: ignore[arg-type]
    sample = root / "sample_submission.csv"
    for text, reason in (
        ("id,dark,lihgt\n1,0,0\n", r"dark, lihgt, but the model predicts dark, middle, light; did you mean light"),
        ("id\n1\n", "no columns beside the id"),
        ("id,label\n1,x\n7,x\n", "1 of the 2 rows of .* not in the table of images, such as 7"),
    ):
        sample.write_text(text)
        with pytest.raises(ValueError, match=reason):
            submitted(root)
    assert not (root / "out.csv").exists()
    sample.write_text("id,score\n1,0\n")
    with pytest.raises(ValueError, match="score, but the model predicts a, b, c"):
        submission_format(read_table(root / "test.csv"), Labels(("a", "b", "c")), 3, probabilities=True)
