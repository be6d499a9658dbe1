"""Errors as ``{"error": "one sentence"}`` with the right status code, and never a traceback."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

STATUS_CLIENT_CLOSED = 499  # nginx's status for a client that has closed the connection: nobody reads this response
STATUS_DESCRIPTIONS = {
    400: "The request contains no image, or names a host that is not this server.",
    404: "No model or network has this name.",
    408: "The image arrived too slowly.",
    413: "The image is too large.",
    415: "The content type is not an image type, or the body is compressed.",
    422: "A parameter is unknown or out of range, or the file is not an image.",
    503: "The queue is full, the prediction timed out, or a model file was replaced or is missing: see Retry-After.",
}


class RequestError(Exception):
    """Ends a request with ``status`` and ``{"error": message}``; for 503 the client is asked to retry."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class ErrorResponse(BaseModel):
    """The body of every error response."""

    error: str = Field(description="One sentence that says what went wrong and what to do.")


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of these error statuses."""
    return {status: {"model": ErrorResponse, "description": STATUS_DESCRIPTIONS[status]} for status in statuses}


def add_error_handlers(app: FastAPI) -> None:
    """Make ``app`` answer every error in the same shape."""

    @app.exception_handler(RequestError)
    async def on_request_error(request: Request, error: RequestError) -> Response:
        return error_response(error.status, error.message, {"Retry-After": "1"} if error.status == 503 else None)

    @app.exception_handler(RequestValidationError)
    async def on_validation_error(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        expected = first["msg"].removeprefix("Input ").partition(",")[0]
        return error_response(422, f"{first['loc'][-1]} {expected}, got {repr(first.get('input'))[:80]}")

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> Response:
        path, headers = request.url.path[:200], dict(error.headers or {})
        if error.status_code == 405:
            message = f"{path} accepts {headers.get('Allow', 'other methods')}, not {request.method}"
        elif error.status_code == 404:
            message = f"{path} does not exist: see /openapi.json"
        else:
            message = str(error.detail)
        return error_response(error.status_code, message, headers)

    @app.exception_handler(Exception)
    async def on_exception(request: Request, error: Exception) -> Response:
        return error_response(500, "internal server error; the server's log has the traceback: please report it")


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return the response for an error."""
    return JSONResponse({"error": message}, status, dict(headers or {}))
