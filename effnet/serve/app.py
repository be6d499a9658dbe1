"""The HTTP API and the page, as an ASGI application."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles

from effnet.arch.scaling import ALPHA, BETA, GAMMA
from effnet.arch.serde import did_you_mean
from effnet.serve import errors, middleware, request_queue, scaling, schemas, upload
from effnet.serve.metrics import CONTENT_TYPE_LATEST, Metrics
from effnet.serve.models import overlay_png

PAGE_DIR = Path(__file__).parent / "page"

_IMAGE_ERRORS = errors.error_responses(*errors.STATUS_DESCRIPTIONS)
_IMAGE_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": upload.REQUEST_CONTENT}}
_PNG_RESPONSE = {
    "description": "The map over the image that the network saw, as a PNG; or its values as JSON.",
    "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
}
_TEXT_RESPONSE = {"description": "Prometheus's text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}

ModelQuery = Annotated[str | None, Query(description="Name of a served model (default: the first).")]
TopQuery = Annotated[int, Query(ge=1, le=1000, description="Number of labels.")]
ClassQuery = Annotated[str | None, Query(alias="class", description="A label or class index (default: the top label).")]
FormatQuery = Annotated[Literal["png", "json"], Query(description="An image, or the map with its values.")]
NetworkQuery = Annotated[str, Query(description="Name of a published network.", examples=["b0"])]
_PHI_BOUNDS = {"ge": scaling.PHI_RANGE[0], "le": scaling.PHI_RANGE[1]}
PhiQuery = Annotated[float, Query(**_PHI_BOUNDS, description="Compound coefficient; 0: the network itself.")]
BesideQuery = Annotated[
    float | None, Query(**_PHI_BOUNDS, description="Draw the diagram to a scale that fits the network at this phi too.")
]
_COEFFICIENT_TEXT = "Depth grows by alpha^phi, width by beta^phi, resolution by gamma^phi."
_LOWEST, _HIGHEST = scaling.COEFFICIENT_RANGE
CoefficientQuery = Annotated[float, Query(ge=_LOWEST, le=_HIGHEST, description=_COEFFICIENT_TEXT)]


def create_app(
    queue: request_queue.RequestQueue, metrics: Metrics, allowed_hosts: Sequence[str] | None = None
) -> FastAPI:
    """Return the application. The caller closes ``queue`` after the last response.

    ``allowed_hosts`` are those of `effnet.serve.middleware.RequestFilter`.
    """
    app = FastAPI(
        title="effnet",
        summary="EfficientNets over HTTP: predictions, class activation maps and compound scaling.",
        version=version("effnet"),
        docs_url=None,  # its page loads scripts from another host
        redoc_url=None,
        dependencies=[Depends(_refuse_unknown_parameters)],
    )
    metrics.set_accepted_source(lambda: queue.accepted)
    _add_image_routes(app, queue)
    _add_info_routes(app, queue)
    _add_monitoring_routes(app, queue, metrics)
    errors.add_error_handlers(app)
    app.add_middleware(middleware.RequestFilter, allowed_hosts=allowed_hosts)
    app.add_middleware(middleware.ResponseMiddleware, metrics=metrics)
    return app


def _refuse_unknown_parameters(request: Request) -> None:
    """Refuse a query parameter that would be ignored: a misspelled one, or the first of two."""
    route = request.scope["route"]
    if not route.include_in_schema:  # the page, to which any link may lead
        return
    known, given = [field.alias for field in route.dependant.query_params], request.query_params.multi_items()
    for name, count in Counter(name for name, _ in given).items():
        if name == "url" and name not in known:
            raise errors.RequestError(400, upload.NO_URLS)
        if name not in known:
            near = did_you_mean(name[:80], known) or (f": its parameters are {', '.join(known)}" if known else "")
            raise errors.RequestError(422, f"{route.path} has no parameter {name[:80]!r}{near}")
        if count > 1:
            raise errors.RequestError(422, f"{name} is given {count} times: give it once")


def _add_image_routes(app: FastAPI, queue: request_queue.RequestQueue) -> None:
    @app.post("/v1/predict", response_model=schemas.PredictResponse, responses=_IMAGE_ERRORS, openapi_extra=_IMAGE_BODY)
    async def predict(request: Request, top: TopQuery = 5, model: ModelQuery = None) -> Response:
        """Predict the labels of an image."""
        served = queue.model(model)
        result = await queue.process(request, lambda content: queue.predict(content, served))
        return JSONResponse(schemas.predict_response(served, result, top))

    @app.post(
        "/v1/explain",
        response_model=schemas.ExplainResponse,
        responses={**_IMAGE_ERRORS, 200: _PNG_RESPONSE},
        openapi_extra=_IMAGE_BODY,
    )
    async def explain(
        request: Request, label: ClassQuery = None, model: ModelQuery = None, format: FormatQuery = "png"
    ) -> Response:
        """Compute the class activation map of an image, which is exact for this family."""
        served = queue.model(model)
        if not served.can_explain:
            message = f"{served.name} is an exported file without activation maps: serve its weights"
            raise errors.RequestError(422, message)
        requested = None if label is None else served.class_index(label)

        async def work(content: bytes) -> Response:
            result = await queue.predict(content, served)
            index = int(result.output.row.argmax()) if requested is None else requested

            def respond() -> Response:
                values = served.activation_map(result.image, index)
                if format == "png":
                    return Response(overlay_png(result.image, values), media_type="image/png")
                return JSONResponse(schemas.explain_response(served, result, index, values))

            return await queue.run_explanation(respond)

        return await queue.process(request, work)


def _add_info_routes(app: FastAPI, queue: request_queue.RequestQueue) -> None:
    @app.get("/v1/models", response_model=schemas.ModelsResponse)
    def models() -> Response:
        """List the served models and the limits of the server."""
        infos = [schemas.model_info(model) for model in queue.models.values()]
        return JSONResponse({"models": infos, "limits": asdict(queue.limits)})

    @app.get("/v1/scale", response_model=schemas.ScaleResponse, responses=errors.error_responses(404, 422))
    def scale(
        network: NetworkQuery = "b0",
        phi: PhiQuery = 0.0,
        alpha: CoefficientQuery = ALPHA,
        beta: CoefficientQuery = BETA,
        gamma: CoefficientQuery = GAMMA,
        svg: Annotated[bool, Query(description="Include the diagram.")] = True,
        narrow: Annotated[bool, Query(description="A vertical diagram, for phones.")] = False,
        beside: BesideQuery = None,
    ) -> Response:
        """Scale a network by compound scaling: its costs and its diagram."""
        coefficients = {"alpha": alpha, "beta": beta, "gamma": gamma}
        return JSONResponse(scaling.scale_network(network, phi, coefficients, svg, narrow, beside))


def _add_monitoring_routes(app: FastAPI, queue: request_queue.RequestQueue, metrics: Metrics) -> None:
    @app.get("/healthz", response_model=schemas.HealthResponse)
    async def health() -> Response:
        """Answer while the server is up."""
        return JSONResponse({"status": "ok", "accepted": queue.accepted})

    @app.get("/metrics", response_class=Response, responses={200: _TEXT_RESPONSE})
    def metrics_text() -> Response:
        """Return metrics for Prometheus."""
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page() -> Response:
        return FileResponse(PAGE_DIR / "index.html", headers={"cache-control": "no-cache"})

    app.mount("/page", StaticFiles(directory=PAGE_DIR), name="page")
