"""What a search found, as files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from math import log
from pathlib import Path

from effnet.draw import surface as drawn
from effnet.draw.figure import Drawing
from effnet.search.coefficients import GROWTH, Found
from effnet.search.grid import PAPER
from effnet.weights.atomic import replacing


def write_coefficients(found: Found, folder: Path) -> list[Path]:
    """Writes ``coefficients.json``, ``points.csv`` (a line a triple), ``surface.svg`` and ``.png``; gives the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "coefficients.json"
    with replacing(path) as beside:
        beside.write_text(json.dumps(found.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return [path, rows(folder / "points.csv", *_points(found)), *picture(folder / "surface", _surface(found))]


def rows(path: Path, heading: Sequence[str], lines: Iterable[Sequence[object]]) -> Path:
    """Writes a CSV."""
    with replacing(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        write = csv.writer(file, lineterminator="\n")
        write.writerow(heading)
        write.writerows(lines)
    return path


def picture(stem: Path, drawing: Drawing) -> list[Path]:
    """Writes ``stem.svg`` and ``stem.png``."""
    contents = {".svg": drawing.alone.encode(), ".png": drawing.png}
    for suffix, content in contents.items():
        with replacing(stem.with_suffix(suffix)) as beside:
            beside.write_bytes(content)
    return [stem.with_suffix(suffix) for suffix in contents]


def _points(found: Found) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
    search, by_arch = found.search, {stand.arch: stand for stand in found.stands}
    place = {stand.arch: number for number, stand in enumerate(found.stands, start=1)}
    triple = ("alpha", "beta", "gamma", "growth", "network", "macs")
    heading = (*triple, "round", "epochs", "seeds", "accuracy", "spread", "at_equal_macs", "first_round")

    def line(number: int) -> Sequence[object]:
        point, arch = search.points[number], search.networks[number]
        stand = by_arch[arch]
        reached = (stand.accuracies.mean, stand.accuracies.spread, stand.worth, found.first[arch])
        rung = (stand.macs, stand.rung + 1, stand.epochs, len(stand.accuracies))
        return *point.triple, float(point.total), place[arch], *rung, *(f"{value:.6f}" for value in reached)

    return heading, map(line, range(len(search.points)))


def _surface(found: Found) -> Drawing:
    """The first round, which all networks took part in, and who came out best."""
    best, smooth = found.best, found.surface
    spots = []
    for point, arch in zip(found.search.points, found.search.networks, strict=True):
        name = "the paper's" if point == PAPER else ""
        if arch == best.arch and point == best.named:
            name = "the best" if not name else "the paper's, the best"
        spots.append(drawn.Spot(point.triple[0], point.triple[2], found.first[arch], name))

    def height(alpha: float, beta: float, gamma: float) -> float:
        assert smooth
        whole = log(GROWTH)
        return smooth.at(log(alpha) / whole, 2 * log(beta) / whole, 2 * log(gamma) / whole)

    return drawn.surface(
        spots, "Accuracy by α and γ, after the first round", height if smooth else None, "top-1 at equal MACs"
    )
