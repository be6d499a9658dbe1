"""Whatever goes wrong is told as ``{"error": one sentence}``, and never as a trace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from effnet.serve.answers import Problem
from effnet.serve.refusal import Refusal

MEANINGS = {
    400: "There is no picture in the request.",
    404: "No model or network has that name.",
    408: "The picture came too slowly.",
    413: "The picture is too large.",
    415: "The content type is no picture's.",
    422: "A parameter is out of its range, or the file is no picture.",
    503: "The queue is full, the answer took too long, or a model's file is gone: try again after Retry-After seconds.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These refusals for OpenAPI."""
    return {status: {"model": Problem, "description": MEANINGS[status]} for status in statuses}


def tell(app: FastAPI) -> None:
    """Lets ``app`` tell all errors so."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> Response:
        return _problem(error.status, error.sentence, error.headers)

    @app.exception_handler(RequestValidationError)
    async def misused(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        expected = first["msg"].removeprefix("Input ").partition(",")[0]
        return _problem(422, f"{first['loc'][-1]} {expected}, got {repr(first.get('input'))[:80]}")

    @app.exception_handler(HTTPException)
    async def elsewhere(request: Request, error: HTTPException) -> Response:
        path, headers = request.url.path[:200], dict(error.headers or {})
        if error.status_code == 405:
            sentence = f"{path} takes {headers.get('Allow', 'another method')}, not {request.method}"
        elif error.status_code == 404:
            sentence = f"there is nothing at {path}: /openapi.json says what there is"
        else:
            sentence = str(error.detail)
        return _problem(error.status_code, sentence, headers)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return _problem(500, "the server has failed at this, and its log says where: please report it")


def _problem(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": sentence}, status, dict(headers or {}))
