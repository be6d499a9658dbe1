"""models --weights: the catalogue, printed."""

from __future__ import annotations

import json

import pytest

from effnet.weights.cards import CARDS, PUBLISHERS, card, select

from .conftest import Run


def test_all(run: Run) -> None:
    done = run("models", "--weights")
    assert done.status == 0
    assert done.err == ""
    rows = {line.split()[0]: line.split()[1:] for line in done.out.splitlines() if line.strip()}
    assert set(CARDS) <= set(rows)
    assert rows["b0/ra4_e3600_r224_in1k"] == ["256", "79.4", "256", "1000", "apache-2.0", "timm"]
    assert rows["b0/tf_ns_jft_in1k"] == ["*", "224", "78.7", "224", "1000", "apache-2.0", "timm"]
    assert rows["lite3/google_int8"] == ["280", "79.0", "–", "1000", "apache-2.0", "google"]
    assert rows["b0/keras_notop"] == ["224", "–", "–", "–", "apache-2.0", "keras"]
    assert rows["b7/torchvision_v1"] == ["600", "84.1", "600", "1000", "–", "torchvision"]


def test_fits_a_narrow_terminal(run: Run) -> None:
    table = run("models", "--weights").out.partition("\n*")[0]
    assert max(len(line.rstrip()) for line in table.splitlines()) <= 80


def test_by_name_and_publisher(run: Run) -> None:
    found = json.loads(run("models", "lite", "--weights", "--publisher", "google", "--json").out)
    assert [row["name"] for row in found] == [card.name for card in select("lite", "google")]
    assert {row["arch"] for row in found} == {f"lite{number}" for number in range(5)}
    assert run("models", "EfficientNetB8", "--weights", "--publisher", "keras").out.startswith("no such weights")
    assert run("models", "nano", "--weights", "--json").out == "[]\n"


def test_json_says_all(run: Run) -> None:
    found = {row["name"]: row for row in json.loads(run("models", "--weights", "--json").out)}
    assert list(found) == list(CARDS)
    b0 = found["b0/google_ns"]
    assert b0["top1"] == 0.788
    said = card("b0/google_ns").to_dict() | {"top1": 0.788}
    assert b0 == json.loads(json.dumps(said))
    assert found["b0/keras_notop"]["top1"] is None


@pytest.mark.parametrize(
    ("words", "says"),
    [(["--publisher", "tim"], ", ".join(PUBLISHERS)), (["b9", "--weights"], "did you mean b8?")],
)
def test_what_is_not_there(run: Run, words: list[str], says: str) -> None:
    done = run("models", *words)
    assert done.status == 1
    assert says in done.err
