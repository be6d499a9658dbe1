"""Response schemas of the API, as OpenAPI describes them, and the functions that fill them."""

import base64
from typing import Any

from numpy.typing import NDArray
from pydantic import BaseModel, Field

from effnet.data.preprocessing import visible_region
from effnet.prediction.predictor import to_prediction
from effnet.serve import request_queue, scaling, upload
from effnet.serve.models import ServedModel, layer_png
from effnet.tasks import task_of


class LabelProbability(BaseModel):
    """A class and its probability."""

    label: str
    index: int = Field(description="Class index.")
    probability: float


class Timings(BaseModel):
    """Seconds on the server."""

    decoding: float
    waiting: float = Field(description="For the network, while it was busy.")
    network: float = Field(description="Of the batch that the image was in.")
    total: float = Field(description="From the last byte of the image on.")


class PredictResponse(BaseModel):
    """The prediction for an image."""

    model: str
    labels: list[LabelProbability] = Field(
        description="Most probable first; of a multi-label model those with a probability of 0.5 or more."
    )
    values: dict[str, float] = Field(description="Of a regression model; else empty.")
    image: upload.ImageInfo
    batch_size: int = Field(description="Images computed together.")
    seconds: Timings


class ExplainResponse(BaseModel):
    """The class activation map of an image."""

    model: str
    label: str
    index: int
    probability: float | None = Field(description="None for a regression model.")
    size: tuple[int, int] = Field(description="Height and width of the map.")
    values: list[list[float]] = Field(description="The map; it sums to the class's logit, except for the bias.")
    box: tuple[float, float, float, float] = Field(
        description="The part of the image that the network sees: left, top, right, bottom as fractions of its sides."
    )
    layer: str = Field(description="The map as a transparent PNG to place over the box, as a data URL.")
    image: upload.ImageInfo
    seconds: float


class NetworkCosts(BaseModel):
    """What a network costs."""

    resolution: int = Field(description="Side in pixels that the architecture is designed for.")
    params: int
    macs: int = Field(description="Multiply-accumulates per image.")
    bytes: int = Field(description="Peak memory of float32 activations, for one image.")
    weight_bytes: int = Field(description="Of the weights in float32.")


class ModelInfo(NetworkCosts):
    """A served model."""

    name: str
    arch: str
    classes: int
    task: str = Field(description="classification, multilabel or regression")
    size: tuple[int, int] = Field(description="Height and width that images are resized and cropped to.")
    preprocess: str
    engine: str
    precision: str
    threads: int
    batch_size: int = Field(description="Largest batch.")
    can_explain: bool = Field(description="Whether /v1/explain has maps of it.")


class ModelsResponse(BaseModel):
    """The served models; the first is the default."""

    models: list[ModelInfo]
    limits: dict[str, float]


class ReleasedNetwork(NetworkCosts):
    """A released network."""

    name: str
    top1: float | None = Field(description="ImageNet top-1 accuracy in percent, as published.")


class ScaleResponse(NetworkCosts):
    """A scaled network and the released networks to compare it with."""

    network: str
    phi: float
    coefficients: dict[str, float]
    arch: dict[str, Any] = Field(description="The architecture: the JSON that `effnet show` and `effnet train` take.")
    requested: dict[str, float] = Field(description="Width, depth, resolution and MACs before rounding.")
    actual: dict[str, float]
    stages: list[dict[str, float]]
    nearest: str = Field(description="The released network of the most similar cost, in MACs and parameters.")
    released: list[ReleasedNetwork] = Field(
        description="The released networks of the same family if there are several, otherwise all; by MACs."
    )
    svg: str = Field(description="The diagram; empty if it was not requested.")


class HealthResponse(BaseModel):
    """The state of the server."""

    status: str
    accepted: int = Field(description="Images that have arrived and are not answered yet.")


def predict_response(model: ServedModel, result: request_queue.ImageOutput, top: int) -> dict[str, Any]:
    """Return the data of a `PredictResponse`."""
    labels, output = model.predictor.labels, result.output
    row = task_of(labels.task).top_k(output.row[None], top)[0]  # (classes,) -> (2, top)
    prediction = to_prediction("", row, labels)
    entries = zip(prediction.labels, row[0].astype(int).tolist(), prediction.probabilities, strict=False)
    return {
        "model": model.name,
        "labels": [{"label": label, "index": index, "probability": p} for label, index, p in entries],
        "values": dict(prediction.values),
        "image": result.header.model_dump(),
        "batch_size": output.batch_size,
        "seconds": {"decoding": result.decoding, "waiting": output.waited, "network": output.seconds}
        | {"total": result.watch.seconds},
    }


def explain_response(
    model: ServedModel, result: request_queue.ImageOutput, index: int, values: NDArray[Any]
) -> dict[str, Any]:
    """Return the data of an `ExplainResponse` for a map (height, width)."""
    labels, preprocess = model.predictor.labels, model.predictor.preprocess
    layer, height, width = layer_png(preprocess.size, values), result.header.height, result.header.width
    left, top, right, bottom = visible_region(height, width, preprocess)
    return {
        "model": model.name,
        "label": labels.name(index),
        "index": index,
        "probability": float(result.output.row[index]) if task_of(labels.task).has_probabilities else None,
        "size": values.shape,
        "values": values.tolist(),
        "box": (left / width, top / height, right / width, bottom / height),
        "layer": f"data:image/png;base64,{base64.b64encode(layer).decode()}",
        "image": result.header.model_dump(),
        "seconds": result.watch.seconds,
    }


def _network_costs(model: ServedModel) -> dict[str, Any]:
    """Return the costs of one image; 0 where a file runs as it stands, whose network is not known."""
    predictor = model.predictor
    if predictor.arch:
        return scaling.network_costs(predictor.arch, predictor.classes, predictor.preprocess.size)
    names = ("params", "macs", "bytes", "weight_bytes")
    return {"resolution": predictor.preprocess.size[0], **dict.fromkeys(names, 0)}


def model_info(model: ServedModel) -> dict[str, Any]:
    """Return the data of a `ModelInfo`."""
    predictor = model.predictor
    return {
        "name": model.name,
        "arch": predictor.arch.name if predictor.arch else "",
        "classes": predictor.classes,
        "task": predictor.labels.task,
        "size": predictor.preprocess.size,
        "preprocess": predictor.preprocess.describe(),
        **_network_costs(model),
        "engine": predictor.engine.kind,
        "precision": predictor.engine.precision,
        "threads": predictor.engine.threads,
        "batch_size": predictor.batch_size,
        "can_explain": model.can_explain,
    }
