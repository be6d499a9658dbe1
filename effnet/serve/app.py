"""The HTTP API and the page, as an ASGI application."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles

from effnet.arch.scaling import ALPHA, BETA, GAMMA
from effnet.serve import errors, heatmap, scaling, schemas
from effnet.serve.metrics import CONTENT_TYPE_LATEST, Metrics
from effnet.serve.middleware import ResponseMiddleware
from effnet.serve.request_queue import RequestQueue
from effnet.serve.upload import REQUEST_CONTENT

PAGE_DIR = Path(__file__).parent / "page"

_IMAGE_ERRORS = errors.error_responses(*errors.STATUS_DESCRIPTIONS)
_IMAGE_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": REQUEST_CONTENT}}
_PNG_RESPONSE = {
    "description": "The map over what the network saw, as a PNG; or as JSON, with its values.",
    "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
}
_TEXT_RESPONSE = {
    "description": "In Prometheus's text format.",
    "content": {"text/plain": {"schema": {"type": "string"}}},
}

ModelQuery = Annotated[str | None, Query(description="A served model's name; the first one where it is left out.")]
TopQuery = Annotated[int, Query(ge=1, le=1000, description="How many labels.")]
ClassQuery = Annotated[
    str | None, Query(alias="class", description="A label or its number; the likeliest if left out.")
]
FormatQuery = Annotated[Literal["png", "json"], Query(description="A picture, or the map with its values.")]
NetworkQuery = Annotated[str, Query(description="A published network's name.", examples=["b0"])]
PhiQuery = Annotated[
    float, Query(ge=scaling.PHI_RANGE[0], le=scaling.PHI_RANGE[1], description="The dial; 0: the network itself.")
]
BesideQuery = Annotated[
    float | None,
    Query(
        ge=scaling.PHI_RANGE[0],
        le=scaling.PHI_RANGE[1],
        description="The diagram's scale is one on which the network would have room at this phi, too.",
    ),
]
CoefficientQuery = Annotated[
    float,
    Query(
        ge=scaling.COEFFICIENT_RANGE[0],
        le=scaling.COEFFICIENT_RANGE[1],
        description="Depth grows by alpha^phi, width by beta^phi, resolution by gamma^phi.",
    ),
]


def create_app(desk: RequestQueue, metrics: Metrics) -> FastAPI:
    """The application. The desk is closed by whoever made it, after the last answer."""
    app = FastAPI(
        title="effnet",
        summary="EfficientNets over HTTP: what a picture shows, where, and what scaling makes of a network.",
        version=version("effnet"),
        docs_url=None,  # its page comes from another host
        redoc_url=None,
    )
    metrics.set_accepted_source(lambda: desk.accepted)
    _add_image_routes(app, desk)
    _add_info_routes(app, desk)
    _add_monitoring_routes(app, desk, metrics)
    _add_page(app)
    errors.add_error_handlers(app)
    app.add_middleware(ResponseMiddleware, metrics=metrics)
    return app


def _add_image_routes(app: FastAPI, desk: RequestQueue) -> None:
    @app.post("/v1/predict", response_model=schemas.PredictResponse, responses=_IMAGE_ERRORS, openapi_extra=_IMAGE_BODY)
    async def predict(request: Request, top: TopQuery = 5, model: ModelQuery = None) -> Response:
        """What a picture shows."""
        served = desk.model(model)
        found = await desk.process(request, lambda content: desk.predict(content, served))
        return JSONResponse(schemas.predict_response(served, found, top))

    @app.post(
        "/v1/explain",
        response_model=schemas.ExplainResponse,
        responses={**_IMAGE_ERRORS, 200: _PNG_RESPONSE},
        openapi_extra=_IMAGE_BODY,
    )
    async def explain(
        request: Request, wanted: ClassQuery = None, model: ModelQuery = None, format: FormatQuery = "png"
    ) -> Response:
        """Where in a picture a class is seen: the class activation map, which is exact for this family."""
        served = desk.model(model)
        served.require_explanations()
        chosen = None if wanted is None else served.class_index(wanted)

        async def work(content: bytes) -> Response:
            found = await desk.predict(content, served)
            index = int(found.output.row.argmax()) if chosen is None else chosen

            def shown() -> Response:
                values = served.activation_map(found.image, index)
                if format == "png":
                    return Response(heatmap.overlay_png(found.image, values), media_type="image/png")
                return JSONResponse(schemas.explain_response(served, found, index, values))

            return await desk.run_explanation(shown)

        return await desk.process(request, work)


def _add_info_routes(app: FastAPI, desk: RequestQueue) -> None:
    @app.get("/v1/models", response_model=schemas.ModelsResponse)
    def models() -> Response:
        """The models that are served, and what this server takes on."""
        served = [schemas.model_info(one) for one in desk.models.values()]
        return JSONResponse({"models": served, "limits": asdict(desk.limits)})

    @app.get("/v1/scale", response_model=schemas.ScaleResponse, responses=errors.error_responses(404, 422))
    def scale(
        network: NetworkQuery = "b0",
        phi: PhiQuery = 0.0,
        alpha: CoefficientQuery = ALPHA,
        beta: CoefficientQuery = BETA,
        gamma: CoefficientQuery = GAMMA,
        svg: Annotated[bool, Query(description="With the diagram.")] = True,
        narrow: Annotated[bool, Query(description="The diagram downwards, for a telephone.")] = False,
        beside: BesideQuery = None,
    ) -> Response:
        """A network grown or shrunk by compound scaling, what it costs, and its diagram."""
        return JSONResponse(
            scaling.scale_network(network, scaling.ScalingFactors(phi, alpha, beta, gamma), svg, narrow, beside)
        )


def _add_monitoring_routes(app: FastAPI, desk: RequestQueue, metrics: Metrics) -> None:
    @app.get("/healthz", response_model=schemas.HealthResponse)
    async def health() -> Response:
        """That the server is there."""
        return JSONResponse({"status": "ok", "accepted": desk.accepted})

    @app.get("/metrics", response_class=Response, responses={200: _TEXT_RESPONSE})
    def metrics_text() -> Response:
        """What Prometheus is told."""
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)


def _add_page(app: FastAPI) -> None:
    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page() -> Response:
        return FileResponse(PAGE_DIR / "index.html", headers={"cache-control": "no-cache"})

    app.mount("/page", StaticFiles(directory=PAGE_DIR), name="page")
