"""What the deployment tests share: the files, and the dashboard generator loaded from its path."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from contract import metrics

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture(scope="session")
def deploy() -> Path:
    """The folder that users copy from."""
    return DEPLOY


@pytest.fixture(scope="session")
def grafana() -> ModuleType:
    """The module deploy/grafana/generate.py."""
    spec = importlib.util.spec_from_file_location("sluice_dashboard", DEPLOY / "grafana" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def labels_of() -> dict[str, frozenset[str]]:
    """Sample name to the labels that a scrape may hold for it."""
    around = {"job", "instance"}
    return {
        series: frozenset({*metric.labels, *around, *({"le"} if series.endswith("_bucket") else ())})
        for metric in metrics.ALL
        for series in metric.series
    } | {"up": frozenset(around)}
