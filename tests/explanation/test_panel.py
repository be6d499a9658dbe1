"""Panels: one row per image, one column per network, maps of the same class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import effnet
from effnet import EfficientNet, Labels
from effnet.explanation import explain
from effnet.explanation.gallery import EDGE, GAP, LINE, draw_panel
from tests.explanation.test_attribution import random_images, random_network

SIDE = 128
WIDE, TALL = random_images(60, 120, 3), random_images(400, 100, 3)


@pytest.fixture(scope="module")
def models() -> list[tuple[str, EfficientNet]]:
    first, second = random_network("nano", 3), random_network("nano", 3)
    first.labels = second.labels = Labels(("ant", "bee", "wasp"))
    second.preprocess = replace(second.preprocess, size=(48, 48), crop_fraction=0.6)
    second.get_parameter("classifier.bias").data += effnet.create("nano", 3).get_parameter("classifier.weight")[:, 0]
    return [("one", first), ("a second one whose name is too long for its column", second)]


def cell(made: Image.Image, row_top: int, column: int, height: int) -> Image.Image:
    left = EDGE + column * (SIDE + GAP)
    return made.crop((left, row_top, left + SIDE, row_top + height))


def test_rows_and_columns(models: list[tuple[str, EfficientNet]]) -> None:
    made = draw_panel(models, [WIDE, TALL], ["wasp", 0], side=SIDE)
    heights = [SIDE // 2, round(1.25 * SIDE)]  # the image's aspect ratio, limited
    assert made.size == (2 * EDGE + 3 * SIDE + 2 * GAP, 2 * EDGE + LINE + sum(heights) + 2 * LINE + GAP)
    top = EDGE + LINE
    for row, (image, name) in enumerate([(WIDE, "wasp"), (TALL, "ant")]):
        high = heights[row]
        width = SIDE if row == 0 else round(SIDE / 4 * 1.25)
        for column in range(3):
            if column:
                shown = explain(models[column - 1][1], image, [name]).overlay(0, 2 * SIDE)
            else:
                shown = Image.fromarray(image)
            shown = shown.resize((width, high), Image.Resampling.BOX)
            found = cell(made, top, column, high)
            left = (SIDE - width) // 2
            inner = np.asarray(found.crop((left, 0, left + width, high)), float)
            difference = np.abs(inner - np.asarray(shown, float)).mean()
            wrong = np.abs(inner - np.asarray(shown, float)[::-1]).mean()
            assert difference < 0.5 * wrong
            assert left == 0 or np.asarray(found)[:, : left - 1].min() == 255
        top += high + LINE + GAP
    names = np.asarray(made.convert("L"))[EDGE : EDGE + LINE - 4]
    assert (names < 128).any()


def test_row_explains_the_most_likely_class_on_average(models: list[tuple[str, EfficientNet]]) -> None:
    answers = np.mean([explain(model, WIDE, [0, 1, 2]).scores for _, model in models], axis=0)
    expected = draw_panel(models, [WIDE], [int(answers.argmax())], side=SIDE)
    assert draw_panel(models, WIDE, side=SIDE).tobytes() == expected.tobytes()
    other = draw_panel(models, [WIDE], [int(answers.argmin())], side=SIDE)
    assert other.tobytes() != expected.tobytes()
    assert draw_panel(models, WIDE, method="gradcam", layer="stage2", side=SIDE).tobytes() != expected.tobytes()


def test_errors(models: list[tuple[str, EfficientNet]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one model"):
        draw_panel([], [WIDE])
    with pytest.raises(ValueError, match="one image"):
        draw_panel(models, [])
    with pytest.raises(ValueError, match="2 images need as many classes, not 1"):
        draw_panel(models, [WIDE, TALL], ["ant"])
    with pytest.raises(ValueError, match="one and larger have different classes"):
        draw_panel([models[0], ("larger", random_network("nano", 4))], WIDE)
    renamed = random_network("nano", 3)
    draw_panel([models[0], ("unnamed", renamed)], WIDE, side=32)  # unknown classes
    renamed.labels = Labels(("cat", "dog", "elk"))
    with pytest.raises(ValueError, match="different classes"):
        draw_panel([models[0], ("renamed", renamed)], WIDE)
    with pytest.raises(ValueError, match="does not exist"):
        draw_panel(models, tmp_path / "no.jpg")
