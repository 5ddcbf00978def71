"""Health and metadata: who serves, what there is, whether it answers, what it takes and gives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request

from contract.errors import BadRequest, NotReady, UnknownModel
from serve.dataplane.front import Plane
from serve.http.refusals import MODEL, NOT_READY
from serve.settings.limits import RequestLimits
from serve.telemetry.shared_page import SharedPage
from serve.wire import oip, oip_models, schemas
from serve.wire.body import BodyReader, ClientLeft
from serve.wire.common import parse_object
from serve.wire.headers import read_headers

MetricsPage = Callable[[], bytes]
"""Blocks until it has the page."""
MAX_INDEX_BYTES = 4096
EXTENSIONS = ["binary_tensor_data", "classification", "model_configuration", "statistics"]


def add_health(shell: FastAPI, dataplane: Plane) -> None:
    """Add the routes that say whether the gateway and its models answer."""

    @shell.get("/v2/health/live", response_model=schemas.Live, summary="Alive?", tags=["health"])
    async def live() -> dict[str, Any]:
        return {"live": True}

    @shell.get(
        "/v2/health/ready",
        response_model=schemas.Ready,
        responses=NOT_READY,
        summary="Does every stage of the policy answer?",
        tags=["health"],
    )
    async def ready() -> dict[str, Any]:
        if not await dataplane.ready():
            raise NotReady("not every stage of the policy answers yet")
        return {"ready": True}

    @shell.get(
        "/v2/models/{model:model}/ready",
        response_model=schemas.ModelReady,
        responses=MODEL,
        summary="Does the model answer?",
        tags=["health"],
    )
    @shell.get(
        "/v2/models/{model:model}/versions/{version_}/ready",
        response_model=schemas.ModelReady,
        responses=MODEL,
        summary="Does this version of the model answer?",
        tags=["health"],
    )
    async def model_ready(model: str, version_: str = oip.VERSION) -> dict[str, Any]:
        _check_version(model, version_)
        if not await dataplane.model_ready(model):
            raise NotReady(f"{model} does not answer yet")
        return {"name": model, "ready": True}


def add_models(shell: FastAPI, dataplane: Plane, limits: RequestLimits, metrics_page: SharedPage) -> None:
    """Add the routes that list and describe what is served."""
    _add_server(shell)
    _add_lists(shell, dataplane)
    _add_all_statistics(shell, dataplane, metrics_page)  # before one model, whose name could be `stats` else
    _add_descriptions(shell, dataplane, limits)
    _add_statistics(shell, dataplane, metrics_page)
    _add_index(shell, dataplane, BodyReader(MAX_INDEX_BYTES, limits.max_seconds))


def _add_server(shell: FastAPI) -> None:
    @shell.get("/", response_model=schemas.Greeting, summary="Who serves", tags=["metadata"])
    async def greeting() -> dict[str, Any]:
        return {**await server(), "status": "alive"}

    @shell.get("/v2", response_model=schemas.ServerMetadata, summary="Who serves", tags=["metadata"])
    async def server() -> dict[str, Any]:
        return {"name": "sluicegate", "version": version("sluicegate"), "extensions": EXTENSIONS}


def _add_lists(shell: FastAPI, dataplane: Plane) -> None:
    @shell.get(
        "/v2/models",
        response_model=schemas.ModelNames,
        responses=NOT_READY,
        summary="The names of what is served",
        tags=["metadata"],
    )
    async def names() -> dict[str, Any]:
        return {"models": list(dataplane.models())}

    @shell.get(
        "/v1/models",
        response_model=schemas.ModelList,
        responses=NOT_READY,
        summary="What is served, in the list form of OpenAI's API",
        tags=["metadata"],
    )
    async def listed() -> dict[str, Any]:
        names = dataplane.models()
        return oip_models.openai_list((name, dataplane.made_at(name)) for name in names)

    @shell.get(
        "/v1/models/{model:model}",
        response_model=schemas.OneModel,
        responses=MODEL,
        summary="Does the model answer? In the forms of OpenAI's API and KServe's first protocol",
        tags=["metadata"],
    )
    async def one(model: str) -> dict[str, Any]:
        dataplane.check_served(model)
        if not await dataplane.model_ready(model):
            raise NotReady(f"{model} does not answer yet")
        return {**oip_models.openai_model(model, dataplane.made_at(model)), "name": model, "ready": True}


def _add_all_statistics(shell: FastAPI, dataplane: Plane, metrics_page: SharedPage) -> None:
    @shell.get(
        "/v2/models/stats",
        response_model=schemas.Statistics,
        responses=NOT_READY,
        summary="What all models have done so far (Triton's statistics extension)",
        tags=["metadata"],
    )
    async def all_statistics() -> dict[str, Any]:
        return oip_models.statistics(dataplane.catalogue(), await metrics_page())


def _add_descriptions(shell: FastAPI, dataplane: Plane, limits: RequestLimits) -> None:
    @shell.get(
        "/v2/models/{model:model}",
        response_model=schemas.ModelMetadata,
        responses=MODEL,
        summary="What a model takes and gives",
        tags=["metadata"],
    )
    @shell.get(
        "/v2/models/{model:model}/versions/{version_}",
        response_model=schemas.ModelMetadata,
        responses=MODEL,
        summary="What this version of a model takes and gives",
        tags=["metadata"],
    )
    async def model_metadata(model: str, version_: str = oip.VERSION) -> dict[str, Any]:
        _check_version(model, version_)
        return oip.model_metadata(dataplane.model(model))

    @shell.get(
        "/v2/models/{model:model}/config",
        response_model=schemas.ModelConfiguration,
        responses=MODEL,
        summary="The configuration of a model (Triton's extension)",
        tags=["metadata"],
    )
    @shell.get(
        "/v2/models/{model:model}/versions/{version_}/config",
        response_model=schemas.ModelConfiguration,
        responses=MODEL,
        summary="The configuration of this version of a model (Triton's extension)",
        tags=["metadata"],
    )
    async def model_config(model: str, version_: str = oip.VERSION) -> dict[str, Any]:
        _check_version(model, version_)
        return oip_models.model_config(dataplane.model(model), limits.max_texts)


def _add_statistics(shell: FastAPI, dataplane: Plane, metrics_page: SharedPage) -> None:
    @shell.get(
        "/v2/models/{model:model}/stats",
        response_model=schemas.Statistics,
        responses=MODEL,
        summary="What a model has done so far (Triton's statistics extension)",
        tags=["metadata"],
    )
    @shell.get(
        "/v2/models/{model:model}/versions/{version_}/stats",
        response_model=schemas.Statistics,
        responses=MODEL,
        summary="What this version of a model has done so far (Triton's statistics extension)",
        tags=["metadata"],
    )
    async def model_statistics(model: str, version_: str = oip.VERSION) -> dict[str, Any]:
        _check_version(model, version_)
        return oip_models.statistics([dataplane.model(model)], await metrics_page())


def _add_index(shell: FastAPI, dataplane: Plane, bodies: BodyReader) -> None:
    @shell.post(
        "/v2/repository/index",
        response_model=list[schemas.IndexEntry],
        response_model_exclude_none=True,
        responses=NOT_READY,
        openapi_extra={
            "requestBody": {
                "required": False,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/IndexBody"}}},
            }
        },
        summary="What is served, and whether it answers (Triton's index)",
        tags=["metadata"],
    )
    async def index(request: Request) -> list[dict[str, str]]:
        try:
            body = await bodies.read(read_headers(request.scope["headers"]), request.receive)
        except ClientLeft:
            return []
        asked = parse_object(body) if body.strip() else {}
        only_ready = asked.get("ready", False)
        if type(only_ready) is not bool:
            raise BadRequest("ready must be true or false")
        names = dataplane.models()
        ready = await asyncio.gather(*(dataplane.model_ready(name) for name in names))
        return oip_models.repository_index(zip(names, ready, strict=True), only_ready=only_ready)


def _check_version(model: str, asked: str) -> None:
    if asked != oip.VERSION:
        raise UnknownModel(f"{model}, version {asked}", (f"{model}, version {oip.VERSION}",))
