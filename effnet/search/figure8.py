"""The study of scaling as a table beside the paper's own figures, and as a plot like its Figure 8."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from effnet.arch import count
from effnet.arch.spec import stage_layers
from effnet.compare import quoted as paper
from effnet.compare.table import Column, Row, Table
from effnet.compare.value import Value, quoted
from effnet.draw.figure import Drawing
from effnet.draw.growth import Mark, Way, growth
from effnet.search.directions import COMPOUND, WAYS
from effnet.search.enough import verdict_possible
from effnet.search.study import Outcome, Scored, enlarged, points

NAME = "scaling"
TITLE = "Accuracy of a network grown in one dimension, or in all (Figures 3 and 8, Table 7)"
WITHIN = 0.05  # of the common MACs: what is farther off is said
COLUMNS = (
    Column("depth", "depth", "×", ("computed",)),
    Column("width", "width", "×", ("computed",)),
    Column("resolution", "resolution", "×", ("computed",)),
    Column("size", "size (px)", kinds=("computed",)),
    Column("params", "params", "M", ("computed",)),
    Column("macs", "MACs", "M", ("computed", "quoted")),
    Column("times", "MACs / base's", "×", ("computed",)),
    Column("top1", "top-1", "%", ("measured", "quoted")),
    Column("spread", "± sd", "%", ("measured",)),
    Column("lead", "compound leads by", kinds=("measured",)),
)


def table(found: Outcome, pictures: Mapping[str, int], about: Mapping[str, Any]) -> Table:
    """``found`` as a table. ``pictures``: how many to learn from ("fit") and judge by ("judge"), and their "side"."""
    study = found.study
    chance = verdict_possible(pictures["judge"])
    rows = [_row(found, one) for one in found.scored]
    rows += [Row(_name(line), {"macs": quoted(line.macs), "top1": quoted(line.top1)}) for line in paper.TABLE7]
    alpha, beta, gamma = study.point.in_words().split(" / ")
    notes = (
        found.verdict(),
        f"{pictures['fit']:,} pictures to learn from, {study.epochs} epochs, {study.seeds} seeds; judged by "
        f"{pictures['judge']:,} pictures that nothing was chosen by. Another draw of as many could move the difference "
        f"of two networks by {100 * chance:.1f} points at most, which intervals over seeds do not show.",
        *filter(None, [enlarged(study, pictures["side"])]),
        f"Compound: α = {alpha}, β = {beta}, γ = {gamma}. All are trained alike; only the network's size differs. "
        "Depth is layers over the base's, as built; a size is named by what was asked, and all four of it go for the "
        "MACs that whole pixels allow.",
        "The paper's lines are B0 and its scalings to four times the MACs, on ImageNet: they compare with each other, "
        "not with ours.",
    )
    return Table(
        NAME, TITLE, f"{paper.V5}, Table 7", COLUMNS, tuple(rows), notes, {**about, "study": to_dict(found, pictures)}
    )


def _name(line: paper.Scaled) -> str:
    factors = (line.depth, line.width, line.resolution)
    several = " (" + " / ".join(f"{each:g}" for each in factors) + ")" if 1 not in factors else ""
    return f"paper: {line.title}{several}"


def _row(found: Outcome, one: Scored) -> Row:
    grown, base = one.grown, found.scored[0].grown
    arch, own = grown.arch, base.arch
    note = (
        "" if abs(grown.off) <= WITHIN else f"{grown.off:+.1%} off the MACs of its size: layers and channels come whole"
    )
    lead = found.leads.get((grown.way, grown.times))
    values = {
        "depth": Value(sum(stage_layers(arch)) / sum(stage_layers(own))),
        "width": Value(arch.width / own.width),
        "resolution": Value(arch.resolution / own.resolution),
        "size": Value(arch.resolution),
        "params": Value(count(arch, classes=found.study.classes).params),
        "macs": Value(grown.macs, note=note.replace("-", "−")),
        "times": Value(grown.macs / base.macs),
        "top1": Value(measured=one.accuracies.mean),
        "spread": Value(measured=one.accuracies.spread if len(one.accuracies) > 1 else None),
    }
    if lead:
        interval = f" ({points(lead.low)} to {points(lead.high)})" if lead.pairs > 1 else ""
        values["lead"] = Value(measured=points(lead.mean) + interval)
    return Row(grown.way if grown.way == "base" else f"{grown.way} ×{grown.times:g}", values)


def to_dict(found: Outcome, pictures: Mapping[str, int]) -> dict[str, Any]:
    """The study as plain data: settings, each accuracy of each seed, the leads with their intervals, the verdict."""
    study = found.study

    def lead(of: Any) -> dict[str, float | int]:
        return {"mean": of.mean, "low": of.low, "high": of.high, "pairs": of.pairs}

    return {
        "base": study.base.to_dict(),
        "alpha_beta_gamma": list(study.point.triple),
        "epochs": study.epochs,
        "seeds": study.seeds,
        "pictures": dict(pictures),
        "difference_told": verdict_possible(pictures["judge"]),
        "networks": [
            {
                "way": one.grown.way,
                "times": one.grown.times,
                "macs": one.grown.macs,
                "accuracies": list(one.accuracies),
                "seconds": one.seconds,
                "arch": one.grown.arch.to_dict(),
            }
            for one in found.scored
        ],
        "leads": [{"over": way, "times": times, **lead(of)} for (way, times), of in found.leads.items()],
        "overall": [{"over": way, **lead(of)} for way, of in found.overall.items()],
        "verdict": found.verdict(),
        "core_seconds": found.seconds,
    }


def plot(found: Outcome) -> Drawing:
    """Accuracy against MACs: a line for each way of growing, from the base, with the spread over seeds as bars."""
    unit, word = (1e9, "billions") if found.scored[-1].grown.macs >= 1e9 else (1e6, "millions")

    def mark(one: Scored) -> Mark:
        return Mark(one.grown.macs / unit, one.accuracies.mean, one.accuracies.spread)

    first = mark(found.scored[0])
    ways = [Way(way, (first, *(mark(one) for one in found.scored if one.grown.way == way))) for way in WAYS]
    assert ways[0].name == COMPOUND
    seeds = found.study.seeds
    label = f"top-1, mean of {seeds} seeds ± standard deviation" if seeds > 1 else "top-1, one seed"
    return growth(ways, f"{word} of MACs for one picture", label, TITLE)
