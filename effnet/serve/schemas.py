"""What the server answers, as OpenAPI tells of it."""

from __future__ import annotations

import base64
from dataclasses import asdict
from typing import Any

from numpy.typing import NDArray
from pydantic import BaseModel, Field

from effnet.prediction.predictor import to_prediction
from effnet.serve import heatmap, scaling
from effnet.serve.models import ServedModel
from effnet.serve.request_queue import ImageOutput
from effnet.tasks import task_of


class LabelProbability(BaseModel):
    """A class and how likely it is."""

    label: str
    index: int = Field(description="The class's number.")
    probability: float


class ImageInfo(BaseModel):
    """What the file said of itself."""

    width: int = Field(description="Pixels of the upright picture.")
    height: int
    format: str
    remark: str = Field(description="What was left out of account, as an animation's other frames; else empty.")


class Timings(BaseModel):
    """Where the time went, on the server."""

    decoding: float
    waiting: float = Field(description="For the network, which was busy with others.")
    network: float = Field(description="Of the whole batch that the picture was in.")
    whole: float = Field(description="From the last byte of the picture on.")


class PredictResponse(BaseModel):
    """What a picture shows."""

    model: str
    labels: list[LabelProbability] = Field(
        description="Likeliest first; of a model with several labels, those of 0.5 or more."
    )
    values: dict[str, float] = Field(description="Of a model that gives values; else empty.")
    image: ImageInfo
    batch: int = Field(description="Pictures that were computed together.")
    seconds: Timings


class ExplainResponse(BaseModel):
    """Where in the picture a class is seen."""

    model: str
    label: str
    index: int
    probability: float | None = Field(description="None of a model that gives values.")
    size: tuple[int, int] = Field(description="Height and width of the map.")
    values: list[list[float]] = Field(
        description="The map: shares of the class's logit, which they are in sum but for its bias."
    )
    box: tuple[float, float, float, float] = Field(
        description="What the network sees of the upright picture: left, top, right, bottom as shares of its sides."
    )
    layer: str = Field(description="The map as a transparent PNG to lay over the box, as a data URL.")
    image: ImageInfo
    seconds: float


class ModelInfo(BaseModel):
    """A model that is served."""

    name: str
    arch: str
    classes: int
    task: str = Field(description="classification, multilabel or regression")
    resolution: int = Field(description="Side in pixels that the arch is made for.")
    size: tuple[int, int] = Field(description="Height and width that pictures are resized and cropped to.")
    preprocess: str
    params: int
    macs: int
    bytes: int
    weight_bytes: int
    engine: str
    precision: str
    threads: int
    batch: int = Field(description="Pictures computed at once, at the most.")
    explains: bool = Field(description="Whether /v1/explain has maps of it.")


class ModelsResponse(BaseModel):
    """The models that are served; the first is used where none is named."""

    models: list[ModelInfo]
    limits: dict[str, float]


class ReleasedNetwork(BaseModel):
    """A released network."""

    name: str
    resolution: int
    params: int
    macs: int
    bytes: int
    weight_bytes: int
    top1: float | None = Field(description="ImageNet top-1 in percent, as published.")


class ScaleResponse(BaseModel):
    """A scaled network beside those that were released."""

    network: str
    phi: float
    coefficients: dict[str, float]
    arch: dict[str, Any] = Field(description="The network as data: what `effnet show` and `effnet train` take as JSON.")
    resolution: int
    params: int
    macs: int = Field(description="Multiply-accumulates of one picture.")
    bytes: int = Field(description="Peak of float32 maps alive at once, for one picture.")
    weight_bytes: int = Field(description="Of the weights in float32.")
    asked: dict[str, float] = Field(description="Width, depth, resolution and MACs before rounding.")
    built: dict[str, float]
    stages: list[dict[str, float]]
    nearest: str = Field(description="The released network that costs most nearly the same, in MACs and parameters.")
    released: list[ReleasedNetwork] = Field(
        description="The released networks of the same rows if there are several, or else all; by their MACs."
    )
    svg: str = Field(description="The diagram; empty where it was not asked for.")


class HealthResponse(BaseModel):
    """That the server is there."""

    status: str
    accepted: int = Field(description="Pictures that have come and are not answered yet.")


# What has been found out, as JSON.


def predict_response(served: ServedModel, found: ImageOutput, top: int) -> dict[str, Any]:
    """As `effnet.serve.schemas.Prediction`."""
    labels, computed = served.predictor.labels, found.output
    row = task_of(labels.task).top_k(computed.row[None], top)[0]  # (classes,) -> (2, top)
    one = to_prediction("", row, labels)
    shares = zip(one.labels, row[0].astype(int).tolist(), one.probabilities, strict=False)
    return {
        "model": served.name,
        "labels": [{"label": label, "index": index, "probability": share} for label, index, share in shares],
        "values": dict(one.values),
        "picture": asdict(found.header),
        "batch": computed.batch_size,
        "seconds": {
            "decoding": found.decoding,
            "waiting": computed.waited,
            "network": computed.seconds,
            "whole": found.watch.seconds,
        },
    }


def explain_response(served: ServedModel, found: ImageOutput, index: int, values: NDArray[Any]) -> dict[str, Any]:
    """As `effnet.serve.schemas.Explanation`, of a map (height, width)."""
    labels, preprocess = served.predictor.labels, served.predictor.preprocess
    layer = heatmap.layer_png(preprocess.size, values)
    return {
        "model": served.name,
        "label": labels.name(index),
        "index": index,
        "probability": float(found.output.row[index]) if task_of(labels.task).has_probabilities else None,
        "size": values.shape,
        "values": values.tolist(),
        "box": heatmap.visible_box(found.header, preprocess),
        "layer": f"data:image/png;base64,{base64.b64encode(layer).decode()}",
        "picture": asdict(found.header),
        "seconds": found.watch.seconds,
    }


def model_info(served: ServedModel) -> dict[str, Any]:
    """As `effnet.serve.schemas.ModelFacts`."""
    predictor = served.predictor
    engine = predictor.engine
    return {
        "name": served.name,
        "arch": predictor.arch.name,
        "classes": predictor.classes,
        "task": predictor.labels.task,
        "size": predictor.preprocess.size,
        "preprocess": predictor.preprocess.describe(),
        **scaling.network_costs(predictor.arch, predictor.classes, predictor.preprocess.size),
        "engine": engine.kind,
        "precision": engine.precision,
        "threads": engine.threads,
        "batch": predictor.batch_size,
        "explains": served.can_explain,
    }
