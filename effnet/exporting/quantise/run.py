"""A network as an int8 file: calibrated on pictures, judged in its own runtime, within a loss that is allowed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from effnet.arch.record import choice, number, whole
from effnet.data.normalise import normalise
from effnet.data.pixels import Fitted
from effnet.engines.engine import Floats
from effnet.engines.interface import ANSWERS, Interface
from effnet.engines.opening import open_file
from effnet.exporting.alike import MEASURES, answer, share_right
from effnet.exporting.quantise.budget import within
from effnet.exporting.quantise.calibrate import Calibration, calibrate
from effnet.exporting.quantise.pictures import Judged, read
from effnet.exporting.quantise.sensitivity import Sensitivity, ranked, sensitivities
from effnet.exporting.quantise.walk import all_operations
from effnet.exporting.quantise.write import FORMATS, write
from effnet.net import EfficientNet
from effnet.net.surgery import fold
from effnet.weights.atomic import replacing, take_place

BATCH = 16
TABLE_PICTURES = 32  # by which layers are compared with each other: enough for an order


@dataclass(frozen=True)
class Quantised:
    """What was written, what of it stays in float, and what that costs on the pictures that it was judged by."""

    path: Path
    format: str  # "onnx", "openvino" or "litert"
    floats: tuple[str, ...]  # layers in float, as in `effnet.arch.operations`
    layers: int  # in all
    measure: str  # "top-1", "labels right" or "R²", against labels; or "agreement", the same with the network's own
    before: float  # shares: the network's
    after: float  # and the file's, run in its own runtime
    pictures: int  # judged
    bytes: int  # of all its files
    table: tuple[Sensitivity, ...] = ()  # empty where nothing had to be left in float
    unreadable: int = 0  # pictures that were left out
    kind: str = "one"  # of the labels

    @property
    def drop(self) -> float:
        """Percentage points lost; below 0 where the file is better."""
        return 100 * (self.before - self.after)

    def in_words(self) -> str:
        """One line for a person."""
        kept = f"{len(self.floats)} of {self.layers} layers in float" if self.floats else "every layer in int8"
        left_out = f"; {self.unreadable:,} could not be read" if self.unreadable else ""
        return (
            f"{kept}; {self.measure} {100 * self.after:.2f} % (float {100 * self.before:.2f} %) "
            f"on {self.pictures:,} pictures{left_out}"
        )


def quantise(
    model: EfficientNet,
    path: str | Path,
    pictures: str | Path,
    interface: Interface | None = None,
    max_drop: float | None = None,
    count: int = 128,
    keep: tuple[str, ...] = (),
    threads: int | None = None,
    step_done: Callable[[int, int], None] = lambda done, of: None,
) -> Quantised:
    """Writes ``model`` to ``path`` in int8: ``.onnx`` (QDQ), ``.xml`` (OpenVINO) or ``.tflite`` (LiteRT).

    Ranges come from ``count`` pictures of the folder ``pictures``, see `effnet.exporting.quantise.pictures.read`. The
    file is run in its own runtime and judged by top-1 where the folder's classes are the network's, by agreement with
    the network where not; of labels of which any may be right by the share of them that is, of values by R².
    Squeeze-excite stays in float, and so does ``keep``. With ``max_drop``, in percentage points, so many of the layers
    that harm most stay in float too; a sensitivity table says which those are.
    Raises ``ValueError`` where the budget cannot be kept (no file is left), for too few pictures, an unknown layer, no
    classifier; ``ImportError`` without the format's packages.
    """
    path, kind = Path(path), model.labels.kind
    interface = interface or Interface(output=ANSWERS[kind], size=model.preprocess.size)
    interface.suits(model.labels)
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: int8 files end in {', '.join(FORMATS)}")
    whole("count", count, 1)
    if max_drop is not None:
        number("max_drop", max_drop, 0, 100)
    if not model.classes:
        raise ValueError("int8 is judged by what a network answers, and this one has no classifier: train a head first")
    folded = fold(model).float().cpu()
    folded.preprocess = model.preprocess
    names = [each.name for _, each in all_operations(folded)]
    for name in keep:
        choice("keep", name, tuple(names))
    read_ = read(pictures, model, count)
    batches = _batches(read_.calibration, folded)
    calibration = calibrate(folded, batches)
    plain = _answers(folded, read_.judged)
    wanted = answer(plain, kind) if read_.targets is None else read_.targets
    before = share_right(plain, wanted, kind)
    always = {name for name in names if "squeeze_excite" in name.split(".") or name in keep}
    table: tuple[Sensitivity, ...] = ()
    with replacing(path) as beside, TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        made, after = Path(folder) / path.name, before

        def drop(floats: frozenset[str]) -> float:
            nonlocal after
            chosen = [name for name in names if name not in always and name not in floats]
            write(made, folded, interface, calibration, chosen)
            engine = open_file(made, threads=threads)
            after = share_right(np.concatenate([engine.run(part) for part in _parts(read_.judged)]), wanted, kind)
            return 100 * (before - after)

        def order() -> list[str]:
            nonlocal table
            table = _table(folded, calibration, read_, always, step_done)
            return ranked(table)

        if max_drop is None:
            floats = frozenset[str]()
            drop(floats)
        else:
            floats = within(max_drop, drop, order, len(names) - len(always))
        written = sum(file.stat().st_size for file in Path(folder).iterdir())
        take_place(made, path, beside)
    kept = tuple(name for name in names if name in always or name in floats)
    measure = "agreement" if read_.targets is None else MEASURES[kind]
    return Quantised(
        path,
        FORMATS[path.suffix],
        kept,
        len(names),
        measure,
        before,
        after,
        len(read_.judged),
        written,
        table,
        read_.unreadable,
        kind,
    )


def sensitivity(
    model: EfficientNet,
    pictures: str | Path,
    count: int = TABLE_PICTURES,
    step_done: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[Sensitivity, ...]:
    """What each layer of ``model`` loses when it alone is in int8, on ``count`` pictures of the folder ``pictures``."""
    folded = fold(model).float().cpu()
    read_ = read(pictures, model, count)
    return _table(folded, calibrate(folded, _batches(read_.calibration, folded)), read_, set(), step_done, count)


def _table(
    model: EfficientNet,
    calibration: Calibration,
    read_: Judged,
    always: set[str],
    step_done: Callable[[int, int], None],
    count: int = TABLE_PICTURES,
) -> tuple[Sensitivity, ...]:
    some = np.linspace(0, len(read_.judged) - 1, min(count, len(read_.judged))).astype(int)  # they lie by class
    targets = None
    if read_.targets is not None:
        targets = [torch.from_numpy(part) for part in _parts(read_.targets[some])]
    chosen = [each.name for _, each in all_operations(model) if each.name not in always]
    return sensitivities(model, calibration, _batches(read_.judged[some], model), targets, chosen, step_done)


def _parts(of: Fitted) -> list[Fitted]:
    return [of[start : start + BATCH] for start in range(0, len(of), BATCH)]


def _batches(pictures: Fitted, model: EfficientNet) -> list[Tensor]:
    return [normalise(torch.from_numpy(part), model.preprocess) for part in _parts(pictures)]


def _answers(model: EfficientNet, pictures: Fitted) -> Floats:
    with torch.inference_mode():
        parts = [model(normalise(torch.from_numpy(part), model.preprocess)).numpy() for part in _parts(pictures)]
    out: Floats = np.concatenate(parts)
    return out
