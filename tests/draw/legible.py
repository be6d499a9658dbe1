"""Legibility of diagrams, from the measured boxes of their texts; texts of plots."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import numpy as np

from effnet.draw.diagram import Box, Diagram, Line, Rect
from effnet.draw.plotting import RenderedPlot


def svg_texts(plot: RenderedPlot) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(plot.svg).iter() if element.tag.endswith("text")]


def contains(outer: Box, inner: Box, slack: float = 0.0) -> bool:
    """Whether ``inner`` is inside, or outside by at most ``slack``."""
    horizontally = outer.x - slack <= inner.x and inner.right <= outer.right + slack
    return horizontally and outer.y - slack <= inner.y and inner.bottom <= outer.bottom + slack


def faults(drawn: Diagram) -> list[str]:
    """Describe texts that leave the canvas or their box, overlap each other, or are crossed by an edge or a line."""
    canvas, texts = Box(0, 0, drawn.width, drawn.height), drawn.texts()
    boxes = [text.box for text in texts]
    found = [
        f"{text.text!r} leaves the canvas" for text, box in zip(texts, boxes, strict=True) if not contains(canvas, box)
    ]
    found += [
        f"{text.text!r} leaves its box"
        for text, box in zip(texts, boxes, strict=True)
        if text.bounds and not contains(text.bounds, box, 0.01)
    ]
    corners = np.array([(box.x, box.y, box.right, box.bottom) for box in boxes])
    for first, second in np.argwhere(np.triu(_overlap(corners, corners), 1)):
        found.append(f"{texts[first].text!r} overlaps {texts[second].text!r}")
    edges = [item.box for item in drawn.primitives() if isinstance(item, Rect)]
    rects = np.array([(box.x, box.y, box.right, box.bottom) for box in edges])
    for first, second in np.argwhere(_overlap(corners, rects)):
        if not contains(edges[second], boxes[first], 0.5):
            found.append(f"an edge of {edges[second]} runs through {texts[first].text!r}")
    # only horizontal and vertical lines: boxes without area, slightly enlarged
    segments = [
        (min(x0, x1) - 0.1, min(y0, y1) - 0.1, max(x0, x1) + 0.1, max(y0, y1) + 0.1)
        for item in drawn.primitives()
        if isinstance(item, Line)
        for (x0, y0), (x1, y1) in pairwise(item.points)
        if abs(x0 - x1) < 0.01 or abs(y0 - y1) < 0.01
    ]
    for first, _ in np.argwhere(_overlap(corners, np.array(segments))) if segments else ():
        found.append(f"a line runs through {texts[first].text!r}")
    return found


def _overlap(ours: np.ndarray, others: np.ndarray) -> np.ndarray:
    a, b = ours[:, None, :], others[None, :, :]
    across = (a[..., 0] < b[..., 2] - 1e-6) & (b[..., 0] < a[..., 2] - 1e-6)
    return across & (a[..., 1] < b[..., 3] - 1e-6) & (b[..., 1] < a[..., 3] - 1e-6)
