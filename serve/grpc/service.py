"""`inference.GRPCInferenceService`: what a gateway replica answers over gRPC."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

import grpc

from contract.errors import Forbidden, NotReady, RequestError, TooLarge, Unauthorized, UnknownModel
from serve.access.gate import Caller, Gate
from serve.dataplane.front import Plane
from serve.dataplane.refusals import count_refusal
from serve.grpc import translation
from serve.grpc.messages import METHODS, SERVICE, message
from serve.grpc.status import code_of, retry_trailer
from serve.settings.limits import RequestLimits
from serve.telemetry.observer import Observer, note_caller
from serve.telemetry.shared_page import SharedPage
from serve.types.clock import Clock
from serve.types.messages import ClassifyResult
from serve.types.recorder import Recorder
from serve.wire import oip, oip_models
from serve.wire.common import check_sticky_key, priority_of
from serve.wire.errors import outcome_of
from serve.wire.headers import RequestHeaders, read_headers
from serve.wire.request_ids import HEADER, request_id

log = logging.getLogger(__name__)

Method = Callable[[bytes, Any], Awaitable[bytes]]
MetricsPage = Callable[[], bytes]

EXTENSIONS = ("classification", "model_configuration", "statistics")
_OPEN = frozenset({"ServerLive", "ServerReady"})
_ID = HEADER.decode()
_STICKY_KEY = "x-sluice-sticky-key"


class InferenceService:
    """Answers the calls of the service from a data plane.

    Args:
        dataplane: decides.
        limits: caps of one request.
        recorder: told of refusals (the data plane tells it of answers).
        metrics_page: gives what statistics are read from.
        gate: asks for keys, once there are some; liveness and readiness are open.
        observer: watches single requests, if anybody does.
        clock: the data plane's.
    """

    def __init__(
        self,
        dataplane: Plane,
        limits: RequestLimits,
        recorder: Recorder,
        metrics_page: MetricsPage,
        *,
        gate: Gate | None = None,
        observer: Observer | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._dataplane = dataplane
        self._limits = limits
        self._recorder = recorder
        self._metrics_page = SharedPage(metrics_page)
        self._gate = gate or Gate()
        self._observer = observer
        self._clock = clock

    async def call(self, name: str, raw: bytes, context: Any) -> bytes:
        """Answer a call of the method of that name, or end it with an error's status."""
        arrived_at = self._clock()
        pairs = [
            (key.encode(), value.encode("utf-8", "replace") if isinstance(value, str) else value)
            for key, value in context.invocation_metadata()
        ]
        headers = read_headers(pairs)
        if self._observer is None or name != "ModelInfer":
            identity, sent, problem = await self._answer(name, raw, headers, context, arrived_at)
        else:
            with self._observer.watch(name, pairs) as watch:
                identity, sent, problem = await self._answer(name, raw, headers, context, arrived_at)
                ended = "OK" if problem is None else code_of(problem).name
                watch.end(ended, identity, failed=problem is not None)
        if problem is not None:
            trailer = (*retry_trailer(problem), (_ID, identity.decode()))
            await context.abort(code_of(problem), problem.message, trailer)
        return sent

    async def _answer(
        self, name: str, raw: bytes, headers: RequestHeaders, context: Any, arrived_at: float
    ) -> tuple[bytes, bytes, RequestError | None]:
        """Return the request's id, and the reply's bytes or what is wrong."""
        identity = request_id(headers.x_request_id)
        context.set_trailing_metadata(((_ID, identity.decode()),))
        try:
            caller = None
            if self._gate.keyed and name not in _OPEN:
                caller = self._gate.identify(headers.authorization, "infer" if name == "ModelInfer" else None)
                if self._observer is not None:
                    note_caller(caller.name)
            if len(raw) > self._limits.max_body_bytes:
                raise TooLarge(f"the message is larger than {self._limits.max_body_bytes} bytes")
            if name == "ModelInfer":
                return identity, *await self._infer(raw, headers, context, arrived_at, caller)
            request = translation.parse(message(f"{name}Request"), raw)
            response = await getattr(self, f"_{name}")(request)
            return identity, response.SerializeToString(), None
        except RequestError as problem:
            if name == "ModelInfer" or isinstance(problem, Unauthorized | Forbidden):
                self._recorder.refused("unknown", outcome_of(problem), 1)
            return identity, b"", problem
        except Exception:
            log.exception("a call of %s failed in a way that none should", name)
            if name == "ModelInfer":
                self._recorder.refused("unknown", "server_error", 1)
            return identity, b"", RequestError("internal error")

    async def _infer(
        self, raw: bytes, headers: RequestHeaders, context: Any, arrived_at: float, caller: Caller | None
    ) -> tuple[bytes, RequestError | None]:
        """Return the reply's bytes, or why there is none. Raises RequestError for what cannot be read."""
        request = translation.parse(translation.INFER_REQUEST, raw)
        model = request.model_name
        local = self._dataplane.local_name(model)
        _check_version(model, request.model_version)
        call = translation.infer_call(
            request,
            self._limits,
            arrived_at,
            context.time_remaining(),
            priority_of(headers.x_sluice_priority),
            "" if caller is None else caller.name,
            local,
        )
        if headers.x_sluice_sticky_key is not None and not call.request.sticky_key:
            call.request.sticky_key = check_sticky_key(headers.x_sluice_sticky_key, _STICKY_KEY)
        try:
            visit = None
            if caller is not None and caller.meter is not None and self._gate.accounts is not None:
                texts = len(call.request.texts)
                usd = texts * self._dataplane.dearest_usd(call.request.model) if caller.meter.in_usd else 0.0
                visit = self._gate.accounts.admit(caller.meter, texts, usd)
            found = self._dataplane.begin(call.request)
            result = found if isinstance(found, ClassifyResult) else await found
        except RequestError as problem:
            count_refusal(self._dataplane, self._recorder, call.request, problem)
            return b"", problem
        except asyncio.CancelledError:
            self._recorder.incident("client_left", "")
            raise
        if visit is not None:
            visit.end(answered=True)
        return translation.infer_response(call, result, raw=bool(request.raw_input_contents)), None

    async def _ServerLive(self, _: Any) -> Any:  # noqa: N802 - named as the method is
        return message("ServerLiveResponse")(live=True)

    async def _ServerReady(self, _: Any) -> Any:  # noqa: N802
        return message("ServerReadyResponse")(ready=await self._dataplane.ready())

    async def _ModelReady(self, request: Any) -> Any:  # noqa: N802
        _check_version(request.name, request.version)
        return message("ModelReadyResponse")(ready=await self._dataplane.model_ready(request.name))

    async def _ServerMetadata(self, _: Any) -> Any:  # noqa: N802
        return message("ServerMetadataResponse")(
            name="sluicegate", version=version("sluicegate"), extensions=EXTENSIONS
        )

    async def _ModelMetadata(self, request: Any) -> Any:  # noqa: N802
        _check_version(request.name, request.version)
        return translation.metadata_response(self._dataplane.model(request.name))

    async def _ModelConfig(self, request: Any) -> Any:  # noqa: N802
        _check_version(request.name, request.version)
        return translation.config_response(self._dataplane.model(request.name), self._limits.max_texts)

    async def _ModelStatistics(self, request: Any) -> Any:  # noqa: N802
        if request.name:
            _check_version(request.name, request.version)
        models = [self._dataplane.model(request.name)] if request.name else self._dataplane.catalogue()
        page = await self._metrics_page()
        return translation.statistics_response(oip_models.statistics(models, page))

    async def _RepositoryIndex(self, request: Any) -> Any:  # noqa: N802
        names = self._dataplane.models()
        ready = await asyncio.gather(*(self._dataplane.model_ready(name) for name in names))
        told = oip_models.repository_index(zip(names, ready, strict=True), only_ready=request.ready)
        return message("RepositoryIndexResponse")(models=told)


def handlers(
    service: Callable[[], InferenceService | None], *, only_from: tuple[str, ...] = ()
) -> grpc.GenericRpcHandler:
    """Return what a gRPC server is given; calls go to whatever `service` returns at the time, if anything.

    Messages are read and written here, not by the server: a broken one is the client's fault, not ours.

    Args:
        service: gives what answers; None while nothing does.
        only_from: how the addresses begin that may call; empty: all.
    """

    def method(name: str) -> Method:
        async def answer(raw: bytes, context: Any) -> bytes:
            if only_from and not context.peer().startswith(only_from):
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, "ask at the front end")
            found = service()
            if found is None:
                problem = NotReady("not serving: try again")
                await context.abort(code_of(problem), problem.message, retry_trailer(problem))
                raise problem  # abort does
            return await found.call(name, raw, context)

        return answer

    return grpc.method_handlers_generic_handler(
        SERVICE, {name: grpc.unary_unary_rpc_method_handler(method(name)) for name in METHODS}
    )


def _check_version(model: str, asked: str) -> None:
    if asked not in {"", oip.VERSION}:
        raise UnknownModel(f"{model}, version {asked[:80]}", (f"{model}, version {oip.VERSION}",))
