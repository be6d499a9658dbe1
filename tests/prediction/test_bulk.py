from __future__ import annotations

import csv
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from effnet.prediction import Prediction, Predictor, bulk, bulk_chunks
from effnet.prediction.bulk import TABLE_COLUMNS, BulkResult, describe_predictor, predict_to_file, table_writer
from effnet.prediction.bulk_chunks import PartialResult
from effnet.prediction.partial_results import PartialResults

Into = Callable[..., BulkResult]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of about 8 names, parts of 4 images: many of them in few images."""
    monkeypatch.setattr(bulk_chunks, "NAMES_PER_CHUNK", 8)
    monkeypatch.setattr(bulk_chunks, "_MAX_NAMES_PER_CHUNK", 32)
    monkeypatch.setattr(bulk_chunks, "IMAGES_PER_PART", 4)


@pytest.fixture
def photos(tmp_path: Path, jpegs: list[bytes]) -> Path:
    """150 images in nested folders, two of which cannot be read."""
    root = tmp_path / "photos"
    for number in range(150):
        path = root / f"{number % 3}" / ("deep" if number % 2 else "") / f"{number:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpegs[number % 8][: 900 if number in (7, 80) else None])
    (root / "notes.txt").write_text("ignored")
    return root


@pytest.fixture
def into(weights: Path, tmp_path: Path) -> Into:
    """`predict_to_file` with the tiny model."""

    def call(name: str, *sources: object, **options: Any) -> BulkResult:
        make = options.pop("make", partial(Predictor, weights, batch_size=8))
        settings = describe_predictor(options.pop("model", weights), decode="reduced")
        return predict_to_file(tmp_path / name, [str(one) for one in sources], make, settings, **options)

    return call


def files(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*.jpg"))


def listed(path: Path) -> list[str]:
    return [json.loads(line)["path"] for line in path.read_text().splitlines()]


def never() -> Predictor:
    raise AssertionError("there is nothing to predict")


def test_one_row_per_image(into: Into, photos: Path, weights: Path, tmp_path: Path) -> None:
    assert into("result.jsonl", photos, top=2) == BulkResult(150, 2)
    rows = [json.loads(line) for line in (tmp_path / "result.jsonl").read_text().splitlines()]
    expected = {one.image: one for one in Predictor(weights)(files(photos), top=2)}
    assert sorted(row["path"] for row in rows) == sorted(expected)
    for row in rows:
        one = expected[row["path"]]
        assert (row["label"], tuple(row["labels"]), row["error"]) == (one.label, one.labels, one.error)
        assert row["probabilities"] == pytest.approx(one.probabilities, rel=1e-3)
    assert sum("is damaged" in row["error"] for row in rows) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "result.jsonl", "result.jsonl.json"]


def test_finished_result_is_kept(into: Into, photos: Path, jpegs: list[bytes], tmp_path: Path) -> None:
    done = into("result.csv", photos)
    before = (tmp_path / "result.csv").read_bytes()
    assert into("result.csv", photos, make=never) == BulkResult(done.images, done.unreadable, already_done=True)
    (photos / "new.jpg").write_bytes(jpegs[0])
    with pytest.raises(ValueError, match="have changed since: predict all again with --force"):
        into("result.csv", photos, make=never)
    assert (tmp_path / "result.csv").read_bytes() == before
    assert into("result.csv", photos, force=True).images == 151
    assert not (tmp_path / ".result.csv.parts").exists()


def test_other_settings_are_refused(into: Into, photos: Path, weights: Path, tmp_path: Path) -> None:
    into("result.jsonl", photos)
    other = tmp_path / "other.safetensors"
    other.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(ValueError, match="was made with another --top: start it over with --force"):
        into("result.jsonl", photos, top=3, make=never)
    with pytest.raises(ValueError, match="was made with other inputs"):
        into("result.jsonl", photos / "0", make=never)
    with pytest.raises(ValueError, match="was made with another model"):
        into("result.jsonl", photos, model=other, make=never)
    (tmp_path / "mine.csv").write_text("a,b\n")
    with pytest.raises(ValueError, match="exists and was not written by this command"):
        into("mine.csv", photos, make=never)
    assert (tmp_path / "mine.csv").read_text() == "a,b\n"
    with (tmp_path / "result.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(ValueError, match="exists and was not written by this command"):
        into("result.jsonl", photos, make=never)
    assert not list(tmp_path.glob(".*.parts"))


def test_failed_start_leaves_no_settings(into: Into, photos: Path, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(Stops):
        into("result.jsonl", photos, make=stopping(weights, 0), top=1)
    assert into("result.jsonl", photos, top=2).images == 150


class Stops(Exception):
    """In place of a kill, within this process."""


def stopping(weights: Path, after: int) -> Callable[[], Predictor]:
    """Return a factory of predictors that stop after that many images."""

    class Stopping(Predictor):
        def stream(self, named_images: Any, *args: Any, **options: Any) -> Iterator[Prediction]:
            for index, one in enumerate(super().stream(named_images, *args, **options)):
                if index == after:
                    raise Stops
                yield one

    return lambda: Stopping(weights, batch_size=8)


def test_resume(into: Into, photos: Path, weights: Path, jpegs: list[bytes], tmp_path: Path) -> None:
    with pytest.raises(Stops):
        into("result.jsonl", photos, make=stopping(weights, 90))
    there = {path.name: path.stat().st_mtime_ns for path in (tmp_path / ".result.jsonl.parts").glob("*.jsonl")}
    kept = sum(len(path.read_text().splitlines()) for path in (tmp_path / ".result.jsonl.parts").glob("*.jsonl"))
    assert 90 - 2 * 4 <= kept <= 90
    with pytest.raises(ValueError, match="was begun with another --top"):
        into("result.jsonl", photos, top=1, make=never)

    (photos / "0" / "000a.jpg").write_bytes(jpegs[0])  # into a finished chunk
    (photos / "2" / "zzz.jpg").write_bytes(jpegs[0])
    (photos / "1" / "004.jpg").unlink()
    progress: list[int] = []
    assert into("result.jsonl", photos, progress=progress.append).images == 151
    assert progress[-1] <= 151 - kept + 2 * 32 + 2  # only the chunks that changed
    found = listed(tmp_path / "result.jsonl")
    assert sorted(found) == files(photos)
    assert len(there) > 10
    assert not (tmp_path / ".result.jsonl.parts").exists()


def test_two_processes(into: Into, photos: Path, tmp_path: Path) -> None:
    with (
        PartialResults(tmp_path / "result.csv").lock(),
        pytest.raises(ValueError, match="is being written by this process"),
    ):
        into("result.csv", photos, make=never)


def test_full_disk(into: Into, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_text
    written = 0

    def full(path: Path, text: str, *rest: Any, **named: Any) -> int:
        nonlocal written
        written += path.parent.name == ".result.jsonl.parts"  # and not the engine cache's files
        if written > 21:  # the lock, the list, and 19 parts
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, text, *rest, **named)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match=r"the disk is full; the predictions so far are in .*run the same command"):
        into("result.jsonl", photos)
    monkeypatch.undo()
    assert len(list((tmp_path / ".result.jsonl.parts").glob("*.jsonl"))) == 19
    assert into("result.jsonl", photos).images == 150
    assert sorted(listed(tmp_path / "result.jsonl")) == files(photos)


def test_full_disk_while_merging(into: Into, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, rows: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patched:
        patched.setattr(bulk, "table_writer", lambda suffix: full)
        with pytest.raises(OSError, match=r"the disk is full; the predictions so far are in "):
            into("result.jsonl", photos)
    assert not (tmp_path / "result.jsonl").exists()
    assert into("result.jsonl", photos, make=never).images == 150


def test_invalid_arguments(into: Into, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.parquet, \.csv, \.jsonl, not in \.txt"):
        into("result.txt", photos)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        into("result.csv", tmp_path / "no")
    with pytest.raises(ValueError, match="nothing matches"):
        into("result.csv", tmp_path / "*.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="contains no images"):
        into("result.csv", tmp_path / "empty")
    with pytest.raises(ValueError, match="top must be"):
        into("result.csv", photos, top=0)
    with pytest.raises(OSError, match="cannot be written"):
        into("photos/0/000.jpg/result.csv", photos)
    assert not list(tmp_path.glob(".*.parts"))


KILLED = """
import json, os, random, signal, sys
from functools import partial
from pathlib import Path
import torch
from effnet.prediction import Predictor, bulk, bulk_chunks

torch.set_num_threads(1)
bulk_chunks.NAMES_PER_CHUNK, bulk_chunks._MAX_NAMES_PER_CHUNK, bulk_chunks.IMAGES_PER_PART = 8, 32, 4
model, source, out = sys.argv[1:]
left = None  # steps to live

def step():
    global left
    if left is not None:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

def stepping(owner, name):
    real = getattr(owner, name)
    def call(*arguments, **named):
        step()
        return real(*arguments, **named)
    setattr(owner, name, call)

for name in ("replace", "unlink", "write_text", "mkdir", "touch"):
    stepping(Path, name)  # every change of the disk
real_read_rows = bulk.PartialResults.read_rows
def read_rows(self, keys):
    for index, row in enumerate(real_read_rows(self, keys)):
        if index % 60 == 0:
            step()
        yield row
bulk.PartialResults.read_rows = read_rows

def run(steps, merging):
    "Return the status of a process that is killed after that many steps, counted from the merge on with ``merging``."
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    global left
    left = None if merging else steps
    real_merge = bulk._merge
    def merge(*arguments):
        global left
        left = steps
        return real_merge(*arguments)
    if merging:
        bulk._merge = merge
    predictor = partial(Predictor, model, batch_size=8)
    done = bulk.predict_to_file(out, [source], predictor, bulk.describe_predictor(model), top=2)
    print(json.dumps([done.images, done.unreadable, done.already_done]), flush=True)
    os._exit(0)

rng = random.Random(0)  # eight runs have 183 steps together: too few to finish, whatever a busy machine keeps of each
kills = [run(rng.randint(1, 40), merging=False) for _ in range(8)]
for steps in range(1, 1000):
    kills.append(run(steps, merging=True))
    if kills[-1] == 0:
        break
print(json.dumps(kills))
"""


def test_kill_at_every_step(weights: Path, photos: Path, tmp_path: Path) -> None:
    """SIGKILL at random steps of the work, then at every step of merging; restarted every time."""
    out = tmp_path / "result.jsonl"
    command = [sys.executable, "-c", KILLED, str(weights), str(photos), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    *finished, kills = map(json.loads, done.stdout.splitlines())
    assert len(kills) > 15
    assert set(kills[:-1]) == {signal.SIGKILL}
    assert finished == [[150, 2, True]]  # killed at the last step, it was finished
    assert sorted(listed(out)) == files(photos)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "result.jsonl", "result.jsonl.json"]


ROWS = [
    Prediction("a/ö.jpg", ("tench, Tinca tinca", "cat"), (0.75, 0.25)),
    Prediction("b.jpg", error="b.jpg is empty"),
    Prediction(os.fsdecode(b"\xff.jpg"), ("cat", 'a "dog"'), (0.5, 1e-9)),
]


def test_csv(tmp_path: Path) -> None:
    table_writer(".csv")(tmp_path / "r.csv", ROWS)
    content = (tmp_path / "r.csv").read_bytes()
    header, first, second, third = csv.reader(content.decode("utf-8", "surrogateescape").splitlines())
    assert tuple(header) == TABLE_COLUMNS == ("path", "label", "probability", "labels", "probabilities", "error")
    assert first[:3] == ["a/ö.jpg", "tench, Tinca tinca", "0.75"]
    assert json.loads(first[3]) == ["tench, Tinca tinca", "cat"]
    assert json.loads(first[4]) == [0.75, 0.25]
    assert second == ["b.jpg", "", "", "", "", "b.jpg is empty"]
    assert os.fsencode(third[0]) == b"\xff.jpg"
    assert json.loads(third[3])[1] == 'a "dog"'


def test_jsonl(tmp_path: Path) -> None:
    table_writer(".jsonl")(tmp_path / "r.jsonl", ROWS)
    first, second, third = map(json.loads, (tmp_path / "r.jsonl").read_text().splitlines())
    assert tuple(first) == TABLE_COLUMNS
    assert first["probabilities"] == [0.75, 0.25]
    assert second == dict(zip(TABLE_COLUMNS, ("b.jpg", "", None, [], [], "b.jpg is empty"), strict=True))
    assert os.fsencode(third["path"]) == b"\xff.jpg"


def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effnet.prediction.bulk._ROWS_PER_GROUP", 2)
    table_writer(".parquet")(tmp_path / "r.parquet", ROWS)
    assert parquet.ParquetFile(tmp_path / "r.parquet").num_row_groups == 2
    first, second, third = parquet.read_table(tmp_path / "r.parquet").to_pylist()
    assert tuple(first) == TABLE_COLUMNS
    assert first["labels"] == ["tench, Tinca tinca", "cat"]
    assert (second["probability"], second["labels"], second["error"]) == (None, [], "b.jpg is empty")
    assert third["path"] == "\\xff.jpg"
    assert third["probabilities"] == pytest.approx([0.5, 1e-9])
    table_writer(".parquet")(tmp_path / "none.parquet", [])
    assert parquet.read_table(tmp_path / "none.parquet").num_rows == 0


def test_missing_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r'pip install "effnet\[tables\]", or use \.csv'):
        table_writer(".parquet")
    assert table_writer(".csv")


def test_partial_results_keep_every_row(tmp_path: Path) -> None:
    parts = PartialResults(tmp_path / "r.csv")
    with parts.lock():
        parts.begin({})
        part = PartialResult("0" * 32, 0, ".last", list(ROWS))
        parts.write(part.file_name, part.text)
        assert list(parts.read_rows(["0" * 32])) == ROWS
        parts.clear()
    assert list(tmp_path.iterdir()) == []
