"""BentoML: one service, its workers and its adaptive batching.

bentoml serve bentoml_peer:Classifier
"""

from __future__ import annotations

from typing import Any

import bentoml
from model import from_environment, setting

BATCH = setting("BATCH", 1)


@bentoml.service(workers=setting("WORKERS", 1), logging={"access": {"enabled": False}})
class Classifier:
    """Answers lists of texts."""

    def __init__(self) -> None:
        self.model = from_environment()

    @bentoml.api(
        route="/v1/classify", batchable=BATCH > 1, max_batch_size=max(BATCH, 2), max_latency_ms=60_000
    )
    def classify(self, inputs: list[str]) -> list[dict[str, Any]]:
        """Answer every text."""
        return self.model.classify(inputs)
