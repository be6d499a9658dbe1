"""What a network search found, as files: the network, its drawing, every candidate, and plots of both."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from effnet.draw.figure import Drawing
from effnet.draw.front import Candidate as Shown
from effnet.draw.front import Kind
from effnet.draw.front import front as front_plot
from effnet.draw.history import history
from effnet.draw.network import network
from effnet.search.candidates import Plan, front, trained
from effnet.search.chance import Compared
from effnet.search.network import Found
from effnet.search.writing import picture, rows
from effnet.weights.atomic import replacing

SCALES = {"macs": 1e6, "params": 1e3, "latency": 1e-3}  # units of the plots' axes
AXES = {"macs": "million MACs", "params": "thousand params", "latency": "ms a picture, on this machine"}
COLUMNS = (
    *("number", "fate", "macs", "params", "cost", "accuracy", "reward"),
    *("score", "parent", "inherited", "generation", "loss", "seconds"),
)


def write_network(found: Found, plan: Plan, classes: int, folder: Path) -> list[Path]:
    """Writes ``found`` into ``folder``; the paths, the arch's first.

    ``network.json``, an arch as every verb takes it; ``network.svg`` and ``.png``, the same drawn; ``trials.csv``, a
    line a candidate; ``front_macs``, ``front_params`` and ``history`` as ``.svg`` and ``.png``, which show what
    stands in it; ``front_latency`` besides where that was the cost.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "network.json"
    with replacing(path) as beside:
        beside.write_text(found.answer.arch.to_json(indent=2) + "\n", encoding="utf-8")
    names, edge = list(plan.space.options), {one.number for one in front(found.candidates)}
    lines = (
        [
            *(_plain(getattr(one, column)) for column in COLUMNS),
            int(one.number in edge),
            *(one.choices[name] for name in names),
        ]
        for one in found.candidates
    )
    written = [path]
    drawing = network(found.answer.arch, classes=classes)
    for suffix, content in ((".svg", drawing.alone.encode()), (".png", drawing.png)):
        with replacing(path.with_suffix(suffix)) as beside:
            beside.write_bytes(content)
        written.append(path.with_suffix(suffix))
    written.append(rows(folder / "trials.csv", (*COLUMNS, "front", *names), lines))
    done = trained(found.candidates)
    for kind in dict.fromkeys(("macs", "params", plan.cost)):
        written += picture(folder / f"front_{kind}", _front(found, plan, kind))
    rewards = [one.reward for one in done]
    written += picture(folder / "history", history(rewards, "reward", "The candidates' rewards", percent=False))
    return written


def _front(found: Found, plan: Plan, cost: str) -> Drawing:
    """All that were trained by one of their costs, with the front by that cost."""
    done = [replace(one, cost=one.cost if cost == plan.cost else float(getattr(one, cost))) for one in found.candidates]
    edge = {one.number for one in front(done)}
    shown = []
    for one in trained(done):
        kind: Kind = "candidate"
        if one.choices == plan.space.start:
            kind = "base"
        if one.number == found.answer.number:
            kind = "answer"
        shown.append(Shown(one.cost / SCALES[cost], one.accuracy or 0.0, kind, on_front=one.number in edge))
    accuracy = f"top-1 after {plan.epochs} epochs" if plan.epochs > 1 else "top-1 after an epoch"
    return front_plot(shown, AXES[cost], f"Accuracy of all candidates against {AXES[cost]}", accuracy)


def write_comparison(compared: Compared, folder: Path) -> Path:
    """Writes ``random.json``: the best random network, both networks' accuracies and their difference."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "random.json"
    with replacing(path) as beside:
        beside.write_text(json.dumps(comparison(compared), indent=2) + "\n", encoding="utf-8")
    return path


def comparison(compared: Compared) -> dict[str, object]:
    """The same as plain data."""
    apart = compared.difference
    return {
        "random": [{"arch": arch.to_dict(), "accuracy": accuracy} for arch, accuracy in compared.field],
        "ours": compared.ours,
        "theirs": compared.theirs,
        "difference": {"mean": apart.mean, "low": apart.low, "high": apart.high, "seeds": apart.pairs},
        "best_random": compared.best.to_dict(),
    }


def _plain(value: object) -> object:
    """A number as a table has it: six decimals, and nothing for what is not known."""
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value
