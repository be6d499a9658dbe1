"""What was measured, as files: JSON with everything, CSV with a line a row, and plots."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import groupby
from pathlib import Path

from effnet.arch.record import Record
from effnet.bench.row import Result, Row
from effnet.bench.why.share import Share
from effnet.bench.why.why import Why
from effnet.draw.figure import Drawing
from effnet.draw.speed import Bar, Point, race, roofline, shares
from effnet.engines.engine import KINDS
from effnet.weights.atomic import replacing


def write_result(result: Result, folder: Path) -> list[Path]:
    """``bench.json``, ``bench.csv``, ``bench.svg`` and ``bench.png`` in ``folder``; their paths.

    Raises ``OSError`` with one sentence where they cannot be written.
    """
    return [
        _json(result, folder / "bench.json"),
        _csv(result.rows, Row, folder / "bench.csv"),
        *_drawing(_race(result), folder, "bench"),
    ]


def write_why(why: Why, folder: Path) -> list[Path]:
    """``why.json``, ``steps.csv``, and as SVG and PNG ``stages``, ``groups`` and ``roofline``; their paths.

    Raises ``OSError`` with one sentence where they cannot be written.
    """
    what = f"{why.network} through {why.engine}"
    bars = {"stages": why.stages, "groups": why.groups}
    plots = {
        name: shares([(part.name, part.time, part.work) for part in parts], f"{what}: time and MACs of its {name}")
        for name, parts in bars.items()
    }
    limits = why.peaks
    points = [Point(step.group, step.intensity, step.speed / 1e9, step.time) for step in why.steps if step.macs]
    plots["roofline"] = roofline(
        points,
        (limits.macs(why.precision) or limits.float32) / 1e9,
        (("within the caches", limits.cache / 1e9), ("beyond them", limits.memory / 1e9)),
        f"{what}: its operations under the machine's limits",
    )
    return [
        _json(why, folder / "why.json"),
        _csv(why.steps, Share, folder / "steps.csv"),
        *(path for name, plot in plots.items() for path in _drawing(plot, folder, name)),
    ]


def _race(result: Result) -> Drawing:
    panels = []
    for (network, batch, threads), group in groupby(result.rows, lambda row: (row.network, row.batch, row.threads)):
        rows = list(group)
        mixed = len({row.precision for row in rows}) > 1
        bars = [
            Bar(
                f"{row.engine}, {row.precision}" if mixed else row.engine,
                *(row.seconds * 1e3, row.p10 * 1e3, row.p99 * 1e3),
                ours=row.engine in KINDS,
            )
            for row in rows
        ]
        told = [f"batch {batch}", f"{threads} thread{'s' if threads != 1 else ''}"]
        panels.append((", ".join([network, *told, *([] if mixed else [rows[0].precision])]), bars))
    return race(panels, "milliseconds of each contestant")


def _json(record: Record, path: Path) -> Path:
    with replacing(path) as beside:
        beside.write_text(record.to_json(indent=2) + "\n", encoding="utf-8")
    return path


def _csv(rows: Sequence[Record], kind: type[Record], path: Path) -> Path:
    names = [field.name for field in fields(kind)]
    with replacing(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        write = csv.writer(file, lineterminator="\n").writerow
        write(names)
        for row in rows:
            values = row.to_dict()
            values |= {"size": "x".join(map(str, values["size"]))} if "size" in values else {}
            write(["" if values[name] is None else values[name] for name in names])
    return path


def _drawing(drawing: Drawing, folder: Path, name: str) -> Iterator[Path]:
    with replacing(folder / f"{name}.svg") as vector:
        vector.write_text(drawing.alone, encoding="utf-8")
    with replacing(folder / f"{name}.png") as bitmap:
        bitmap.write_bytes(drawing.png)
    yield from (folder / f"{name}.svg", folder / f"{name}.png")
