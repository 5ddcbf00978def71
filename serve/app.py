"""The gateway as one ASGI application: hot routes in front, FastAPI for the rest and for the description."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from contract.errors import NotReady, RequestError, UnknownModel
from serve.dataplane import DataPlane
from serve.hot import CLASSIFY, HotRoutes, Scope, Send
from serve.limits import RequestLimits
from serve.protocol import oip, schemas
from serve.protocol.body import Receive
from serve.protocol.errors import error_reply, plain_error
from serve.protocol.wire import Reply
from serve.recorder import Recorder

MetricsPage = Callable[[], bytes]
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
EXTENSIONS = ["binary_tensor_data"]
SUMMARY = (
    "Small compressed models answer first; texts that they are unsure about escalate to the large one. "
    "The model named `cascade` is the router; every variant answers by its own name."
)

_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": schemas.ErrorBody, "description": "Malformed, or against the protocol"},
    404: {"model": schemas.ErrorBody, "description": "Unknown model"},
    408: {"model": schemas.ErrorBody, "description": "The body did not arrive in time"},
    413: {"model": schemas.ErrorBody, "description": "Beyond the limits of one request"},
    415: {"model": schemas.ErrorBody, "description": "A type or encoding that is not read here"},
    429: {"model": schemas.ErrorBody, "description": "No room now; Retry-After says when"},
    503: {"model": schemas.ErrorBody, "description": "Not serving yet, or draining"},
    504: {"model": schemas.ErrorBody, "description": "The deadline passed"},
}
_NOT_READY: dict[int | str, dict[str, Any]] = {503: _REFUSALS[503]}
_MODEL: dict[int | str, dict[str, Any]] = {404: _REFUSALS[404], 503: _REFUSALS[503]}


class Gateway:
    """The ASGI application.

    Attributes:
        hot: the routes that carry the load, for a host that can call them before its own bookkeeping.
        shell: everything else; it does not answer the hot routes.
    """

    def __init__(
        self, dataplane: DataPlane, limits: RequestLimits, recorder: Recorder, metrics_page: MetricsPage
    ) -> None:
        self.hot = HotRoutes(dataplane, limits, recorder)
        self.shell = make_shell(dataplane, self.hot, metrics_page)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI event stream."""
        if self.hot.takes(scope):
            await self.hot(scope, receive, send)
        else:
            await self.shell(scope, receive, send)


class _Passed(Response):
    """A response that lets the hot routes write it."""

    def __init__(self, hot: HotRoutes) -> None:
        super().__init__()
        self._hot = hot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._hot(scope, receive, send)


def make_shell(dataplane: DataPlane, hot: HotRoutes, metrics_page: MetricsPage) -> FastAPI:
    """Return the FastAPI application: it answers every route, the hot ones by way of `hot`."""
    shell = FastAPI(
        title="Sluicegate",
        version=version("sluicegate"),
        description=SUMMARY,
        redoc_url=None,
        redirect_slashes=False,
    )
    _answer_errors_in_one_form(shell)
    _add_inference(shell, hot)
    _add_health(shell, dataplane)
    _add_metadata(shell, dataplane)

    @shell.get("/metrics", response_class=Response, summary="Prometheus metrics", tags=["operation"])
    async def metrics() -> Response:
        return Response(await asyncio.to_thread(metrics_page), media_type=METRICS_TYPE)

    _describe_bodies(shell)
    return shell


def _answer_errors_in_one_form(shell: FastAPI) -> None:
    @shell.exception_handler(HTTPException)
    async def of_routing(request: Request, problem: HTTPException) -> Response:
        text = {404: "no such path", 405: f"{request.method[:16]} is not offered on this path"}
        headers = tuple((k.lower().encode(), v.encode()) for k, v in (problem.headers or {}).items())
        return _response(
            plain_error(problem.status_code, text.get(problem.status_code, problem.detail), headers)
        )

    @shell.exception_handler(RequestError)
    async def of_requests(_: Request, problem: RequestError) -> Response:
        return _response(error_reply(problem))

    @shell.exception_handler(Exception)
    async def of_ours(_: Request, __: Exception) -> Response:
        return _response(plain_error(500, "internal error"))


def _add_inference(shell: FastAPI, hot: HotRoutes) -> None:
    @shell.post(
        CLASSIFY,
        response_model=schemas.ClassifyReply,
        responses=_REFUSALS,
        openapi_extra=_body_of(schemas.ClassifyBody),
        summary="Classify texts",
        tags=["inference"],
    )
    async def classify() -> Response:
        return _Passed(hot)

    @shell.post(
        "/v2/models/{model}/infer",
        response_model=schemas.InferReply,
        responses=_REFUSALS,
        openapi_extra=_body_of(schemas.InferBody),
        summary="Infer (Open Inference Protocol)",
        tags=["inference"],
    )
    async def infer(model: str) -> Response:  # noqa: ARG001 - for the description; `hot` reads the path
        return _Passed(hot)

    @shell.post(
        "/v2/models/{model}/versions/{version_}/infer",
        response_model=schemas.InferReply,
        responses=_REFUSALS,
        openapi_extra=_body_of(schemas.InferBody),
        summary="Infer with a version (Open Inference Protocol)",
        tags=["inference"],
    )
    async def infer_version(model: str, version_: str) -> Response:  # noqa: ARG001 - as above
        return _Passed(hot)


def _add_health(shell: FastAPI, dataplane: DataPlane) -> None:
    @shell.get("/v2/health/live", response_model=schemas.Live, summary="Alive?", tags=["health"])
    async def live() -> dict[str, Any]:
        return {"live": True}

    @shell.get(
        "/v2/health/ready",
        response_model=schemas.Ready,
        responses=_NOT_READY,
        summary="Does every stage of the policy answer?",
        tags=["health"],
    )
    async def ready() -> dict[str, Any]:
        if not await dataplane.ready():
            raise NotReady("not every stage of the policy answers yet")
        return {"ready": True}

    @shell.get(
        "/v2/models/{model}/ready",
        response_model=schemas.ModelReady,
        responses=_MODEL,
        summary="Does the model answer?",
        tags=["health"],
    )
    @shell.get(
        "/v2/models/{model}/versions/{version_}/ready",
        response_model=schemas.ModelReady,
        responses=_MODEL,
        summary="Does this version of the model answer?",
        tags=["health"],
    )
    async def model_ready(model: str, version_: str = oip.VERSION) -> dict[str, Any]:
        _check_version(model, version_)
        if not await dataplane.model_ready(model):
            raise NotReady(f"{model} does not answer yet")
        return {"name": model, "ready": True}


def _add_metadata(shell: FastAPI, dataplane: DataPlane) -> None:
    @shell.get("/v2", response_model=schemas.ServerMetadata, summary="Who serves", tags=["metadata"])
    async def server() -> dict[str, Any]:
        return {"name": "sluicegate", "version": version("sluicegate"), "extensions": EXTENSIONS}

    @shell.get(
        "/v2/models/{model}",
        response_model=schemas.ModelMetadata,
        responses=_MODEL,
        summary="What a model takes and gives",
        tags=["metadata"],
    )
    @shell.get(
        "/v2/models/{model}/versions/{version_}",
        response_model=schemas.ModelMetadata,
        responses=_MODEL,
        summary="What this version of a model takes and gives",
        tags=["metadata"],
    )
    async def model_metadata(model: str, version_: str = oip.VERSION) -> dict[str, Any]:
        _check_version(model, version_)
        return oip.model_metadata(dataplane.model(model))


def _check_version(model: str, asked: str) -> None:
    if asked != oip.VERSION:
        raise UnknownModel(f"{model}, version {asked}")


def _response(reply: Reply) -> Response:
    headers = {name.decode(): value.decode() for name, value in reply.headers}
    return Response(reply.body, reply.status, headers, reply.content_type.decode())


def _body_of(model: type[BaseModel]) -> dict[str, Any]:
    reference = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": reference}}}}


def _describe_bodies(shell: FastAPI) -> None:
    """Let the description hold the request types, which no FastAPI parameter mentions."""

    def describe() -> dict[str, Any]:
        if shell.openapi_schema is None:
            schema = get_openapi(
                title=shell.title, version=shell.version, description=shell.description, routes=shell.routes
            )
            components = schema["components"]["schemas"]
            for model in (schemas.ClassifyBody, schemas.InferBody):
                described = model.model_json_schema(ref_template="#/components/schemas/{model}")
                components.update(described.pop("$defs", {}))
                components[model.__name__] = described
            for name in ("HTTPValidationError", "ValidationError"):
                components.pop(name, None)
            for path in schema["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
            schema["components"]["schemas"] = dict(sorted(components.items()))
            shell.openapi_schema = schema
        return shell.openapi_schema

    shell.openapi = describe  # type: ignore[method-assign]
