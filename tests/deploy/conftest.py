"""What the deployment tests share: the files, and the labels of every metric."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract import metrics

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture(scope="session")
def deploy() -> Path:
    """The folder that users copy from."""
    return DEPLOY


@pytest.fixture(scope="session")
def labels_of() -> dict[str, frozenset[str]]:
    """Sample name to the labels that a scrape may hold for it."""
    around = {"job", "instance"}
    return {
        series: frozenset({*metric.labels, *around, *({"le"} if series.endswith("_bucket") else ())})
        for metric in metrics.ALL
        for series in metric.series
    } | {"up": frozenset(around)}
