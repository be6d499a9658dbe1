"""Why a request is not answered: a status and one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

STATUS_CLIENT_CLOSED = 499  # as nginx writes it down: nobody is there to read this answer


RETRY_AFTER = MappingProxyType({"Retry-After": "1"})


class RequestError(Exception):
    """Ends a request with ``status`` and ``{"error": sentence}``."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, dict(headers or {})


# Whatever goes wrong is told as ``{"error": one sentence}``, and never as a trace.


STATUS_DESCRIPTIONS = {
    400: "There is no picture in the request.",
    404: "No model or network has that name.",
    408: "The picture came too slowly.",
    413: "The picture is too large.",
    415: "The content type is no picture's.",
    422: "A parameter is out of its range, or the file is no picture.",
    503: "The queue is full, the answer took too long, or a model's file is gone: try again after Retry-After seconds.",
}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These refusals for OpenAPI."""
    return {status: {"model": ErrorResponse, "description": STATUS_DESCRIPTIONS[status]} for status in statuses}


def add_error_handlers(app: FastAPI) -> None:
    """Lets ``app`` tell all errors so."""

    @app.exception_handler(RequestError)
    async def on_request_error(request: Request, error: RequestError) -> Response:
        return _error_response(error.status, error.message, error.headers)

    @app.exception_handler(RequestValidationError)
    async def on_validation_error(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        expected = first["msg"].removeprefix("Input ").partition(",")[0]
        return _error_response(422, f"{first['loc'][-1]} {expected}, got {repr(first.get('input'))[:80]}")

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> Response:
        path, headers = request.url.path[:200], dict(error.headers or {})
        if error.status_code == 405:
            sentence = f"{path} takes {headers.get('Allow', 'another method')}, not {request.method}"
        elif error.status_code == 404:
            sentence = f"there is nothing at {path}: /openapi.json says what there is"
        else:
            sentence = str(error.detail)
        return _error_response(error.status_code, sentence, headers)

    @app.exception_handler(Exception)
    async def on_exception(request: Request, error: Exception) -> Response:
        return _error_response(500, "the server has failed at this, and its log says where: please report it")


def _error_response(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": sentence}, status, dict(headers or {}))


class ErrorResponse(BaseModel):
    """Why there is no answer."""

    error: str = Field(description="One sentence that says what to do.")
