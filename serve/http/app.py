"""The gateway as one ASGI application: hot routes in front, FastAPI for the rest and for the description."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.types import DecoratedCallable
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from contract.errors import RequestError
from serve.access.gate import Gate
from serve.dataplane.front import Plane
from serve.http import page
from serve.http.decisions.routes import DecisionRoutes
from serve.http.doors import Doors
from serve.http.fast_routes import CLASSIFY, HotRoutes, Scope, Send
from serve.http.forgiving import Forgiving, allowed
from serve.http.identified import Identified
from serve.http.model_names import know_model_names
from serve.http.models import MetricsPage, add_health, add_models
from serve.http.observed_routes import ObservedRoutes
from serve.http.refusals import DECISION_REFUSALS, REFUSALS, add_refusals
from serve.settings.access import AccessSettings
from serve.settings.limits import RequestLimits
from serve.telemetry.observer import Observer
from serve.telemetry.shared_page import SharedPage
from serve.types.recorder import Recorder
from serve.wire import schemas
from serve.wire.body import Receive
from serve.wire.common import Reply
from serve.wire.decisions import schemas as decision_schemas
from serve.wire.decisions.errors import DECISIONS, SYSTEM_ONE, in_the_form_of
from serve.wire.errors import error_reply, plain_error
from serve.wire.request_ids import HEADER, request_id_in

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SUMMARY = (
    "Small compressed models answer first; texts that they are unsure about escalate to the large one. "
    "The model named `cascade` is the router; every variant answers by its own name. Of several families "
    "`NAME` is the router and `NAME/VARIANT` a variant."
)


_BODIES: tuple[type[BaseModel], ...] = (
    schemas.ClassifyBody, schemas.InferBody, schemas.IndexBody, decision_schemas.DecisionBody,
    decision_schemas.SystemOneBody,
)  # fmt: skip


class Gateway:
    """The ASGI application.

    Args:
        dataplane: decides.
        limits: caps of one request.
        recorder: told of refusals.
        metrics_page: gives /metrics.
        gate: asks for keys, once there are some.
        access: what is open without one.
        observer: watches single requests, if anybody does.
        decisions: answers the routes of decision endpoints; None: as their defaults have it.

    Attributes:
        hot: the routes that carry the load, for a host that can call them before its own bookkeeping.
        shell: answers everything, the hot routes by way of `hot`, and asks for keys itself.
    """

    def __init__(
        self,
        dataplane: Plane,
        limits: RequestLimits,
        recorder: Recorder,
        metrics_page: MetricsPage,
        *,
        gate: Gate | None = None,
        access: AccessSettings | None = None,
        observer: Observer | None = None,
        decisions: DecisionRoutes | None = None,
    ) -> None:
        gate = gate or Gate()
        self.hot = HotRoutes(dataplane, limits, recorder, gate, decisions)
        if observer is not None:
            self.hot = ObservedRoutes(dataplane, limits, recorder, gate, observer, decisions)
        self.shell = make_shell(dataplane, self.hot, limits, metrics_page)
        self.shell.add_middleware(Doors, gate=gate, access=access or AccessSettings(), recorder=recorder)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI event stream."""
        if self.hot.takes(scope):
            await self.hot(scope, receive, send)
            return
        await self.shell(scope, receive, send)


class _Passed(Response):
    """A response that lets the hot routes write it."""

    def __init__(self, hot: HotRoutes) -> None:
        super().__init__()
        self._hot = hot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._hot(scope, receive, send)


def make_shell(dataplane: Plane, hot: HotRoutes, limits: RequestLimits, metrics_page: MetricsPage) -> FastAPI:
    """Return the FastAPI application: it answers every route, the hot ones by way of `hot`."""
    know_model_names()
    shell = FastAPI(
        title="Sluicegate",
        version=version("sluicegate"),
        description=SUMMARY,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    shell.add_middleware(Forgiving)
    shell.add_middleware(Identified)
    _answer_errors_in_one_form(shell)
    _add_inference(shell, hot)
    add_health(shell, dataplane)
    drawn = SharedPage(metrics_page)
    add_models(shell, dataplane, limits, drawn)
    add_refusals(shell)

    @shell.get("/metrics", response_class=Response, summary="Prometheus metrics", tags=["operation"])
    async def metrics() -> Response:
        return Response(await drawn(), media_type=METRICS_TYPE)

    @shell.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(page.render(shell.openapi()), media_type="text/html", headers=page.HEADERS)

    _describe_bodies(shell)
    return shell


def _answer_errors_in_one_form(shell: FastAPI) -> None:
    @shell.exception_handler(HTTPException)
    async def of_routing(request: Request, problem: HTTPException) -> Response:
        if problem.status_code == 404:
            paths = ", ".join(sorted(shell.openapi()["paths"]))
            return _response(plain_error(404, f"no such path; there are: {paths}; to read: /docs"))
        if problem.status_code == 405:
            methods = ", ".join(allowed(shell.routes, request.scope))
            allow = ((b"allow", methods.encode()),)
            if request.method == "OPTIONS":
                return _response(Reply(b"", headers=allow))
            text = f"{request.method[:16]} is not offered on this path; it takes {methods}"
            return _response(in_the_form_of(request.url.path, plain_error(405, text, allow)))
        return _response(plain_error(problem.status_code, problem.detail))

    @shell.exception_handler(RequestError)
    async def of_requests(_: Request, problem: RequestError) -> Response:
        return _response(error_reply(problem))

    @shell.exception_handler(Exception)
    async def of_ours(request: Request, __: Exception) -> Response:
        # Starlette answers these outside of every middleware.
        identity = (HEADER, request_id_in(request.scope["headers"]))
        return _response(plain_error(500, "internal error", (identity,)))


def _add_inference(shell: FastAPI, hot: HotRoutes) -> None:
    @_inference(shell, CLASSIFY, "Classify texts", schemas.ClassifyBody, schemas.ClassifyReply)
    async def classify() -> Response:
        return _Passed(hot)

    @_inference(
        shell,
        "/v2/models/{model:model}/infer",
        "Infer (Open Inference Protocol)",
        schemas.InferBody,
        schemas.InferReply,
    )
    async def infer(model: str) -> Response:  # noqa: ARG001 - for the description; `hot` reads the path
        return _Passed(hot)

    @_inference(
        shell,
        "/v2/models/{model:model}/versions/{version_}/infer",
        "Infer with a version (Open Inference Protocol)",
        schemas.InferBody,
        schemas.InferReply,
    )
    async def infer_version(model: str, version_: str) -> Response:  # noqa: ARG001 - as above
        return _Passed(hot)

    @_inference(
        shell,
        DECISIONS,
        "Answer closed questions (OpenAI's Decisions API)",
        decision_schemas.DecisionBody,
        decision_schemas.DecisionReply,
        DECISION_REFUSALS,
    )
    async def decisions() -> Response:
        return _Passed(hot)

    @_inference(
        shell,
        SYSTEM_ONE,
        "Answer closed questions (System One)",
        decision_schemas.SystemOneBody,
        decision_schemas.SystemOneReply,
        DECISION_REFUSALS,
    )
    async def systemone() -> Response:
        return _Passed(hot)


def _inference(
    shell: FastAPI,
    path: str,
    summary: str,
    body: type[BaseModel],
    reply: type[BaseModel],
    refusals: dict[int | str, dict[str, Any]] = REFUSALS,
) -> Callable[[DecoratedCallable], DecoratedCallable]:
    """Describe a route that the fast ones answer."""
    return shell.post(
        path,
        response_model=reply,
        responses=refusals,
        openapi_extra=_body_of(body),
        summary=summary,
        tags=["inference"],
    )


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
            for model in _BODIES:
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
