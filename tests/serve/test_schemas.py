"""The API against its own description, fuzzed by schemathesis."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serve.conftest import Running

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")

# Cases per hundred for each operation, half of them valid and half of them not
SHARES = {"/v1/predict": 35, "/v1/explain": 30, "/v1/scale": 25, "/v1/models": 4, "/healthz": 3, "/metrics": 3}


def fuzz(running: Running, photos: list[tuple[bytes, str]], cases: int) -> Counter[int]:
    """Count the response statuses of that many cases, none of which may violate the schema."""
    # Random bytes are never an image: some are replaced by one, or by part of one
    some = st.sampled_from([content for content, _ in photos])
    images = st.one_of(some, st.binary(max_size=64), some.map(lambda content: content[: len(content) // 2]))
    for kind in ("jpeg", "png", "webp", "gif", "bmp", "tiff", "avif"):
        schemathesis.openapi.media_type(f"image/{kind}", images)
    schema = schemathesis.openapi.from_asgi("/openapi.json", running.app)
    checks, seen = schemathesis.checks, Counter[int]()
    checked = [
        checks.not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_headers_conformance,
        checks.response_schema_conformance,
    ]
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            if mode == schemathesis.GenerationMode.NEGATIVE and operation.path not in list(SHARES)[:3]:
                continue  # nothing in it can be invalid

            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(
                max_examples=max(1, cases * SHARES[operation.path] // 200),
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
            )
            def ask(case: schemathesis.Case) -> None:
                response = case.call_and_validate(checks=checked)
                seen[response.status_code] += 1

            ask()
    return seen


def test_a_hundred_requests(running: Running, photos: list[tuple[bytes, str]]) -> None:
    seen = fuzz(running, photos, 120)
    assert sum(seen.values()) >= 100
    assert not {status for status in seen if status >= 500}
    assert seen[200] > 5  # not all are refused
    assert running.queue.accepted == 0


@pytest.mark.sweep
def test_thousands_of_requests(running: Running, photos: list[tuple[bytes, str]]) -> None:
    seen = fuzz(running, photos, 5600)
    assert sum(seen.values()) >= 5000
    assert not {status for status in seen if status >= 500}


def test_openapi_is_complete(running: Running) -> None:
    async def work() -> str:
        async with running.client() as client:
            return (await client.get("/openapi.json")).text

    text = asyncio.run(work())
    described = json.loads(text)
    assert set(described["paths"]) == set(SHARES)
    names = set(described["components"]["schemas"])
    assert not {name for name in names if f'"#/components/schemas/{name}"' not in text}
    assert "HTTPValidationError" not in names
    body = described["paths"]["/v1/predict"]["post"]["requestBody"]
    assert body["required"]
    assert {"multipart/form-data", "image/jpeg", "image/png"} <= set(body["content"])
    for path in ("/v1/predict", "/v1/explain"):
        responses = described["paths"][path]["post"]["responses"]
        assert set(responses) == {"200", "400", "404", "408", "413", "415", "422", "503"}
        for status in set(responses) - {"200"}:
            assert responses[status]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorResponse")
