from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from io import BytesIO
from math import exp
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from PIL import Image

import effnet
from effnet import Predictor
from effnet.arch.variants import RELEASED_ARCHS
from effnet.serve.models import ServedModel
from effnet.serve.server import ServerLimits
from tests.serve.conftest import Client, Running, encode_image, serve_model

T = TypeVar("T")
PNG = {"content-type": "image/png"}


def with_client(running: Running, work: Callable[[Client], Awaitable[T]]) -> T:
    async def within() -> T:
        async with running.client() as client:
            return await work(client)

    return asyncio.run(within())


def get_json(running: Running, path: str) -> Any:
    async def work(client: Client) -> Any:
        found = await client.get(path)
        assert found.status_code == 200, found.text
        return found.json()

    return with_client(running, work)


def post_image(running: Running, path: str, content: bytes, form: bool = False) -> Any:
    async def work(client: Client) -> Any:
        if form:
            found = await client.post(path, files={"file": ("x.png", content)})
        else:
            found = await client.post(path, content=content, headers=PNG)
        assert found.status_code == 200, found.text
        return found.json() if found.headers["content-type"] == "application/json" else found

    return with_client(running, work)


def test_form_and_body_uploads_predict_as_the_predictor(
    running: Running, weights: Path, photos: list[tuple[bytes, str]]
) -> None:
    expected = Predictor(weights, engine="eager")(photos[0][0], top=3)[0]
    for form in (False, True):
        found = post_image(running, "/v1/predict?top=3", photos[0][0], form)
        assert found["model"] == "squares"
        assert [row["label"] for row in found["labels"]] == list(expected.labels)
        assert [row["probability"] for row in found["labels"]] == pytest.approx(expected.probabilities, abs=1e-6)
        assert found["image"] == {"width": 64, "height": 60, "format": "PNG", "remark": ""}
        names = running.queue.models["squares"].predictor.labels.names
        assert [names[row["index"]] for row in found["labels"]] == list(expected.labels)
        assert 0 < found["seconds"]["network"] <= found["seconds"]["total"]


def test_batched_predictions_belong_to_their_images(weights: Path, photos: list[tuple[bytes, str]]) -> None:
    alone = Predictor(weights, engine="eager")
    expected = [alone(content)[0] for content, _ in photos]
    assert sum(one.label == label for one, (_, label) in zip(expected, photos, strict=True)) > 18

    async def work(client: Client) -> list[Any]:
        calls = [client.post("/v1/predict", content=content, headers=PNG) for content, _ in photos * 3]
        return [found.json() for found in await asyncio.gather(*calls)]

    with serve_model(weights, ServerLimits(queue_size=100), batch=5) as running:
        found = with_client(running, work)
    for one, other in zip(found, expected * 3, strict=True):
        shares = {row["label"]: row["probability"] for row in one["labels"]}
        assert shares == pytest.approx(dict(zip(other.labels, other.probabilities, strict=True)), abs=1e-5)
    assert max(one["batch_size"] for one in found) == 5  # some were computed together


def test_map_sums_to_the_logit(running: Running, weights: Path, photos: list[tuple[bytes, str]]) -> None:
    model, content = effnet.load(weights), photos[0][0]
    bias = model.classifier.bias.tolist()  # type: ignore[union-attr]
    shares, sums = [], []
    for index, label in enumerate(model.labels.names):
        for label_or_index in (label, str(index)):
            found = post_image(running, f"/v1/explain?format=json&class={label_or_index}", content)
        assert (found["index"], found["label"], found["size"]) == (index, label, [8, 8])
        shares.append(found["probability"])
        sums.append(np.sum(found["values"]) + bias[index])
    assert np.diff(np.log(shares)) == pytest.approx(np.diff(sums), abs=1e-4)
    top = post_image(running, "/v1/explain?format=json", content)
    assert top["index"] == int(np.argmax(shares))


def test_map_as_png_and_its_box(running: Running, photos: list[tuple[bytes, str]]) -> None:
    found = post_image(running, "/v1/explain", photos[0][0])
    assert found.headers["content-type"] == "image/png"
    assert Image.open(BytesIO(found.content)).size == (32, 32)
    # 64×60 pixels: the short side becomes 40 = 32 / 0.8, and the long one 42: the middle 32 of each are visible
    found = post_image(running, "/v1/explain?format=json", photos[0][0])
    assert found["box"] == pytest.approx([5 / 42, 0.1, 37 / 42, 0.9])
    assert found["layer"].startswith("data:image/png;base64,")
    # EXIF-rotated images are described upright
    out, exif = BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.open(BytesIO(photos[0][0])).save(out, "JPEG", exif=exif)
    rotated = post_image(running, "/v1/explain?format=json", out.getvalue())
    assert (rotated["image"]["width"], rotated["image"]["height"]) == (60, 64)
    assert rotated["box"] == pytest.approx([0.1, 5 / 42, 0.9, 37 / 42])


def test_animation_uses_first_frame(running: Running, photos: list[tuple[bytes, str]]) -> None:
    frames = [Image.open(BytesIO(content)).convert("P") for content, _ in photos[:3]]
    out = BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    found = post_image(running, "/v1/predict", out.getvalue())
    assert found["image"]["remark"] == "the image is an animation: only the first frame is used"
    first = post_image(running, "/v1/predict", encode_image(np.asarray(frames[0].convert("RGB"))))
    assert found["labels"] == first["labels"]
    out = BytesIO()
    frames[0].save(out, "TIFF", save_all=True, append_images=frames[1:])
    assert "only the first page" in post_image(running, "/v1/predict", out.getvalue())["image"]["remark"]


def test_models(running: Running) -> None:
    (found,) = get_json(running, "/v1/models")["models"]
    counted = effnet.count("nano", 32, classes=6)
    assert (found["name"], found["arch"], found["classes"], found["task"]) == ("squares", "nano", 6, "classification")
    assert (found["params"], found["macs"]) == (counted.params, counted.macs)
    assert (found["engine"], found["batch_size"], found["can_explain"]) == ("eager", 4, True)
    assert get_json(running, "/v1/models")["limits"]["queue_size"] == 64


def test_scale(running: Running) -> None:
    found = get_json(running, "/v1/scale?phi=0")
    assert (found["params"], found["macs"], found["nearest"]) == (5288548, 385814752, "b0")
    assert found["svg"].startswith("<svg")
    grown = get_json(running, "/v1/scale?phi=1&svg=false")
    arch = effnet.Arch.from_dict(grown["arch"])
    assert arch == effnet.scale("b0", 1)
    assert grown["params"] == effnet.count(arch).params
    assert grown["weight_bytes"] == 4 * grown["params"]
    assert grown["svg"] == ""
    assert [row["name"] for row in grown["released"]] == ["b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "l2"]
    assert grown["nearest"] == "b2"  # φ = 1: 9.1 M params, 860 M MACs; b1: 7.8 M, 687 M; b2: 9.1 M, 994 M
    wider = get_json(running, "/v1/scale?network=efficientnet-b0&phi=1&alpha=1&beta=1.4&gamma=1&svg=false")
    assert effnet.Arch.from_dict(wider["arch"]) == effnet.scale("b0", 1, 1.0, 1.4, 1.0)
    assert get_json(running, "/v1/scale?network=nano&phi=1&svg=false")["nearest"]  # no released network has its rows
    alone = get_json(
        running, "/v1/scale?network=v2_s&phi=1&svg=false"
    )  # only one has its rows: it is compared with all
    macs = {row["name"]: row["macs"] for row in alone["released"]}
    assert len(macs) == len(RELEASED_ARCHS) - 1
    assert alone["nearest"] in macs
    assert list(macs.values()) == sorted(macs.values())


def test_multilabel_and_regression_models(photos: list[tuple[bytes, str]]) -> None:
    for kind in ("multilabel", "regression"):
        model = effnet.create("nano", classes=2).eval()
        model.labels = effnet.Labels(("age", "height"), kind)
        model.classifier.weight.data.zero_()  # type: ignore[union-attr]
        model.classifier.bias.data[:] = effnet_bias = model.classifier.bias.data.new_tensor([2.0, -1.0])  # type: ignore[union-attr]
        running = Running({"x": ServedModel("x", model, "eager", 1)}, ServerLimits())
        found = post_image(running, "/v1/predict", photos[0][0])
        where = post_image(running, "/v1/explain?format=json&class=height", photos[0][0])
        running.queue.close()
        if kind == "multilabel":
            (row,) = found["labels"]  # the other's own probability is below a half
            assert (row["label"], row["probability"]) == ("age", pytest.approx(1 / (1 + exp(-2))))
            assert where["probability"] == pytest.approx(1 / (1 + exp(1)))
        else:
            assert found["values"] == pytest.approx(dict(zip(("age", "height"), effnet_bias.tolist(), strict=True)))
            assert found["labels"] == []
            assert where["probability"] is None
        assert np.abs(where["values"]).max() == 0


def test_metrics_per_server(weights: Path, photos: list[tuple[bytes, str]]) -> None:
    def metrics_of(running: Running) -> str:
        async def work(client: Client) -> str:
            found = await client.get("/metrics")
            assert found.headers["content-type"].startswith("text/plain")
            return found.text

        return with_client(running, work)

    model = effnet.load(weights)
    servers: list[Running] = []
    for _ in range(2):
        running = Running({}, ServerLimits())
        observer = running.metrics.batch_observer("squares")
        running.queue.models = {"squares": ServedModel("squares", model, "eager", 4, on_batch=observer)}
        servers.append(running)
    one, other = servers
    post_image(one, "/v1/predict", photos[0][0])
    assert 'effnet_requests_total{path="/v1/predict",status="200"} 1.0' in metrics_of(one)
    assert 'effnet_batch_images_count{model="squares"} 1.0' in metrics_of(one)
    assert "effnet_accepted_images 0.0" in metrics_of(one)
    assert "/v1/predict" not in metrics_of(other)
    for running in servers:
        running.queue.close()


def test_page_and_its_security_policy(running: Running) -> None:
    async def work(client: Client) -> None:
        found = await client.get("/")
        assert found.headers["content-type"].startswith("text/html")
        policy = found.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "http" not in policy.replace("http-", "")
        for name in ("tabs.js", "style.css"):
            assert f"/page/{name}" in found.text
            assert (await client.get(f"/page/{name}")).status_code == 200
        assert (await client.head("/")).status_code == 200
        assert (await client.get("/healthz")).json() == {"status": "ok", "accepted": 0}

    with_client(running, work)
