"""The options that say how a file of weights is read, declared once for every command that opens one.

A command has one parameter ``part: WeightsOptions`` and the decorator `with_weights_options`; its user sees an option
for each field: ``--prefix``, ``--head``, ``--padding``, ``--bn-eps``, ``--preprocess`` and ``--task``.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import wraps
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from typer import Option

from effnet.cli import options

if TYPE_CHECKING:
    from effnet.net import EfficientNet
    from effnet.runtime.foreign_onnx import OnnxFile

PARAMETER = "part"  # of a command, in whose place the options stand


@dataclass(frozen=True)
class WeightsOptions:
    """What the user says of a file of weights; None for what the file is to say itself."""

    prefix: Annotated[
        str | None,
        Option("--prefix", metavar="NAME", help="Which of several networks in a file: how its tensors' names begin."),
    ] = None
    head: Annotated[
        str | None, Option("--head", metavar="NAME", help="Which of several linear layers in a file is the classifier.")
    ] = None
    padding: Annotated[
        str | None,
        Option("--padding", metavar="KIND", help="same or symmetric: padding of weights that do not state it."),
    ] = None
    bn_eps: Annotated[
        float | None,
        options.real("Batch-norm epsilon of weights that do not state it.", "--bn-eps", max=1, metavar="EPS"),
    ] = None
    preprocess: Annotated[
        str | None,
        Option(
            "--preprocess",
            metavar="SETTINGS",
            help="How images become the input, if not stated or assumed wrongly: size=240,crop=0.9,mean=0.5,std=0.5, "
            "interpolation, resize, resampling, bits.",
        ),
    ] = None
    task: Annotated[
        str | None,
        Option(
            "--task",
            metavar="TASK",
            help="What the outputs of weights are that do not state it: classification, multilabel or regression.",
        ),
    ] = None

    @property
    def chosen(self) -> dict[str, Any]:
        """The fields that were given."""
        return options.given(**{field.name: getattr(self, field.name) for field in fields(self)})

    @property
    def keywords(self) -> dict[str, Any]:
        """The arguments of `effnet.load` that were given."""
        return {name: value for name, value in self.chosen.items() if name != "preprocess"}

    def refuse(self, reason: str) -> None:
        """Raise `UsageError` with ``reason``, such as "cannot be combined with --ensemble", if any was given."""
        if self.chosen:
            raise options.UsageError(f"--{next(iter(self.chosen)).replace('_', '-')} {reason}")

    def load(self, model: str, labels: tuple[str, ...] | None = None, **more: Any) -> "EfficientNet":
        """Return the network in the file ``model``, read as these options say; ``labels`` name its outputs.

        ``more``: further arguments of `effnet.load`.
        """
        stated = parse_preprocess(self.preprocess)
        from effnet.weights import load

        return options.rename_outputs(set_preprocess(load(model, **self.keywords, **more), stated), labels)

    def open(self, model: str, labels: tuple[str, ...] | None = None) -> "str | EfficientNet":
        """Return the network as `load` does; ``model`` itself if nothing was said of it."""
        return self.load(model, labels) if self.chosen or labels is not None else model

    def open_to_run(
        self, model: str, engine: str = "auto", device: str | None = None, embeds: bool = False
    ) -> "str | EfficientNet | OnnxFile":
        """Return what is to be run: as `open` does, but an ONNX file of another program as it stands if it can be.

        Options that say how weights are read, such as --padding, have them read, and so has ``embeds``.
        """
        if not self.chosen and not embeds:
            return model
        from effnet.runtime.foreign_onnx import find_runnable, is_foreign

        if embeds and (self.chosen or is_foreign(Path(model))):
            return self.load(model)
        if not self.chosen:
            return model
        file = find_runnable(model, engine, device) if self.chosen.keys() <= {"preprocess", "task"} else None
        return replace(file, preprocess=parse_preprocess(self.preprocess), task=self.task) if file else self.load(model)


AS_STATED = WeightsOptions()


def with_weights_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command the options ``names`` of `WeightsOptions`, by default all of them.

    The command's parameter ``part`` receives them together.
    """
    names = names or tuple(field.name for field in fields(WeightsOptions))
    hints = get_type_hints(WeightsOptions, include_extras=True)
    keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
    expanded = [inspect.Parameter(name, keyword, default=None, annotation=hints[name]) for name in names]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)
        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            parameters += expanded if parameter.name == PARAMETER else [parameter]

        @wraps(command)
        def run(**values: Any) -> None:
            part = WeightsOptions(**{name: values.pop(name) for name in names})
            command(**values, **{PARAMETER: part})

        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def parse_preprocess(text: str | None) -> dict[str, Any]:
    """Return the fields of `effnet.Preprocess` in ``size=240,crop=0.9,mean=0.485/0.456/0.406``; raise `UsageError`."""
    parsers: dict[str, Callable[[str], Any]] = {
        "size": options.parse_image_size,
        "crop_fraction": _parse_float,
        "mean": _parse_channels,
        "std": _parse_channels,
        "resize": str,
        "interpolation": str,
        "resampling": str,
        "bits": int,
    }
    found: dict[str, Any] = {}
    for part in options.split_list(text or ""):
        name, _, value = (word.strip() for word in part.partition("="))
        name = {"crop": "crop_fraction"}.get(name, name)
        if name not in parsers:
            raise options.UsageError(f"--preprocess {part}: expected NAME=VALUE with {', '.join(parsers)}")
        try:
            found[name] = parsers[name](value)
        except ValueError:
            raise options.UsageError(
                f"--preprocess {part}: {value!r} is not a number, or numbers as 0.5/0.4/0.3"
            ) from None
    return found


def _parse_channels(text: str) -> tuple[float, ...]:
    return tuple(_parse_float(number) for number in text.split("/"))


def _parse_float(text: str) -> float:
    if not isfinite(number := float(text)):
        raise ValueError("neither nan nor inf is a number")
    return number


def set_preprocess(model: "EfficientNet", stated: dict[str, Any]) -> "EfficientNet":
    """Set the ``stated`` fields of the network's preprocessing, one number of mean or std for all channels."""
    channels = len(model.preprocess.mean)
    spread = {name: value * channels for name, value in stated.items() if name in ("mean", "std") and len(value) == 1}
    model.preprocess = replace(model.preprocess, **(stated | spread))
    return model
