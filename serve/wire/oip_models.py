"""What Triton's extensions of the Open Inference Protocol tell of models: configuration, statistics, index.

Statistics are read from the page that `/metrics` serves, so that asking for them costs requests nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from contract.metrics import BATCH_ITEMS, REQUEST_DURATION, REQUESTS
from serve.types.messages import ModelInfo
from serve.wire.oip import DATATYPES, INPUT, VERSION, outputs_of

BACKEND = "sluicegate"
CONFIG_TYPES = {"BYTES": "TYPE_STRING", "FP32": "TYPE_FP32", "BOOL": "TYPE_BOOL"}

Sums = dict[tuple[str, ...], float]


def model_config(info: ModelInfo, max_texts: int) -> dict[str, Any]:
    """Return the configuration of a model in Triton's form.

    `max_batch_size` is the most texts of one request; `dims` leave the first dimension, which counts them,
    out, as Triton does.
    """
    return {
        "name": info.name,
        "platform": f"sluicegate_{info.kind}",
        "backend": BACKEND,
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": max_texts,
        "input": [{"name": INPUT, "data_type": CONFIG_TYPES["BYTES"], "dims": []}],
        "output": [
            {
                "name": name,
                "data_type": CONFIG_TYPES[DATATYPES[name]],
                "dims": [len(info.labels)] if name == "probabilities" else [],
            }
            for name in outputs_of(info.local or info.name, abstains=info.abstains)
        ],
        "instance_group": [{"name": info.name, "kind": "KIND_AUTO"}],
        "parameters": {"content": {"string_value": info.content_sha256}},
    }


class Counts:
    """What the metrics page has counted, summed as statistics ask. Raises ValueError for no such page."""

    def __init__(self, page: str) -> None:
        wanted = {
            REQUESTS.name: ("family", "model", "outcome"),
            f"{REQUEST_DURATION.name}_sum": ("family", "model", "stage"),
            f"{REQUEST_DURATION.name}_count": ("family", "model", "stage"),
            f"{BATCH_ITEMS.name}_sum": ("family", "variant"),
            f"{BATCH_ITEMS.name}_count": ("family", "variant"),
        }
        self._sums: dict[str, Sums] = defaultdict(lambda: defaultdict(float))
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if (labels := wanted.get(sample.name)) is not None:
                    key = tuple(sample.labels.get(label, "") for label in labels)
                    self._sums[sample.name][key] += sample.value

    def statistics_of(self, info: ModelInfo) -> dict[str, Any]:
        """Return one entry of `model_stats`.

        `success` counts requests by that name, `fail` texts by that name that got no answer. The other
        figures are the model's own work, whoever asked: a variant's calls for the cascade are in them.
        """
        model = info.family, info.local or info.name
        refused = sum(
            value
            for (family, name, outcome), value in self._sums[REQUESTS.name].items()
            if (family, name) == model and outcome != "ok"
        )
        success = self._timed(model, "total")
        if info.is_cascade:
            texts = self._sums[REQUESTS.name][*model, "ok"]
            calls = float(success["count"])
        else:
            texts = self._sums[f"{BATCH_ITEMS.name}_sum"][model]
            calls = self._sums[f"{BATCH_ITEMS.name}_count"][model]
        nothing = {"count": 0, "ns": 0}
        return {
            "name": info.name,
            "version": VERSION,
            "inference_count": round(texts),
            "execution_count": round(calls),
            "inference_stats": {
                "success": success,
                "fail": {"count": round(refused), "ns": 0},
                "queue": self._timed(model, "queue"),
                "compute_input": nothing,
                "compute_infer": self._timed(model, "inference"),
                "compute_output": nothing,
                "cache_hit": nothing,
                "cache_miss": nothing,
            },
            "batch_stats": [],
        }

    def _timed(self, model: tuple[str, str], stage: str) -> dict[str, int]:
        seconds = self._sums[f"{REQUEST_DURATION.name}_sum"][*model, stage]
        return {
            "count": round(self._sums[f"{REQUEST_DURATION.name}_count"][*model, stage]),
            "ns": round(seconds * 1e9),
        }


def statistics(models: Iterable[ModelInfo], page: bytes) -> dict[str, Any]:
    """Return the reply of GET /v2/models/stats for these models, from the page that /metrics serves."""
    counts = Counts(page.decode())
    return {"model_stats": [counts.statistics_of(model) for model in models]}


def openai_list(models: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return the reply of GET /v1/models for (name, when made) of each: an ISO date, or empty."""
    return {"object": "list", "data": [openai_model(name, made_at) for name, made_at in models]}


def openai_model(name: str, made_at: str) -> dict[str, Any]:
    """Return one model as OpenAI's API lists it."""
    try:
        created = int(datetime.fromisoformat(made_at).timestamp())
    except ValueError:
        created = 0
    return {"id": name, "object": "model", "created": created, "owned_by": BACKEND}


def repository_index(models: Iterable[tuple[str, bool]], *, only_ready: bool) -> list[dict[str, str]]:
    """Return the reply of POST /v2/repository/index for (name, ready) of each model."""
    return [
        {"name": name, "version": VERSION, "state": "READY" if ready else "UNAVAILABLE"}
        | ({} if ready else {"reason": "a stage of it does not answer"})
        for name, ready in models
        if ready or not only_ready
    ]
