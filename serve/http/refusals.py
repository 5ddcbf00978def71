"""What is refused and how: error replies as described, and calls that other servers have and this not."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Response

from contract.errors import BadRequest
from serve.wire import schemas
from serve.wire.decisions.schemas import DecisionError

REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": schemas.ErrorBody, "description": "Malformed, or against the protocol"},
    401: {"model": schemas.ErrorBody, "description": "No valid key, where keys are asked for"},
    403: {"model": schemas.ErrorBody, "description": "A key of another scope"},
    404: {"model": schemas.ErrorBody, "description": "Unknown model"},
    408: {"model": schemas.ErrorBody, "description": "The body did not arrive in time"},
    413: {"model": schemas.ErrorBody, "description": "Beyond the limits of one request"},
    415: {"model": schemas.ErrorBody, "description": "A type or encoding that is not read here"},
    429: {
        "model": schemas.ErrorBody,
        "description": "No room now, or beyond the limits of the key; Retry-After says when",
    },
    503: {"model": schemas.ErrorBody, "description": "Not serving yet, or draining"},
    504: {"model": schemas.ErrorBody, "description": "The deadline passed"},
}
DECISION_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: told | {"model": DecisionError} for status, told in REFUSALS.items()
} | {500: {"model": DecisionError, "description": "A stage or the upstream broke"}}
"""Beside these whatever status an upstream gives to what is passed on."""
KEYED: dict[int | str, dict[str, Any]] = {401: REFUSALS[401]}
NOT_READY: dict[int | str, dict[str, Any]] = {503: REFUSALS[503]}
MODEL: dict[int | str, dict[str, Any]] = {404: REFUSALS[404], 503: REFUSALS[503]}

_SHARED_MEMORY = "shared memory is not offered: send tensors in the body, as JSON or binary"
_NOT_OFFERED: tuple[tuple[tuple[str, ...], tuple[str, ...], str], ...] = (
    (
        ("POST",),
        ("/v2/repository/models/{model:model}/load", "/v2/repository/models/{model:model}/unload"),
        "models are loaded and unloaded by the operator: `sluice family load` and "
        "`sluice family unload`, or another policy with `sluice policy push`",
    ),
    (
        ("GET", "POST"),
        (
            "/v2/systemsharedmemory/{rest:path}",
            "/v2/cudasharedmemory/{rest:path}",
        ),
        _SHARED_MEMORY,
    ),
    (
        ("GET", "POST"),
        ("/v2/trace/setting", "/v2/models/{model:model}/trace/setting"),
        "tracing is not offered; /metrics has the times of each stage",
    ),
    (("GET", "POST"), ("/v2/logging",), "log settings are the operator's and cannot be read or set here"),
    (
        ("POST",),
        ("/v2/models/{model:model}/generate", "/v2/models/{model:model}/generate_stream", "/v1/completions",
         "/v1/chat/completions", "/v1/responses", "/v1/embeddings"),
        "this gateway classifies and generates nothing: POST /v1/classify, or /v2/models/{model}/infer",
    ),
    (
        ("POST",),
        ("/v1/models/{model:model}:predict", "/v1/models/{model:model}:explain"),
        "KServe's first protocol is not offered: use the second, POST /v2/models/{model}/infer",
    ),
)  # fmt: skip

REFUSED = tuple(path.replace(":model}", "}") for _, paths, _ in _NOT_OFFERED for path in paths)


def add_refusals(shell: FastAPI) -> None:
    """Answer 400 with a reason where a client may expect what other servers have; not in the description."""
    for methods, paths, reason in _NOT_OFFERED:
        for path in paths:
            shell.add_api_route(
                path,
                _refusing(reason),
                methods=list(methods),
                response_class=Response,
                include_in_schema=False,
            )


def _refusing(reason: str) -> Any:
    async def refuse() -> Response:
        raise BadRequest(reason)

    return refuse
