"""The dashboard: generated, current, and asking only for what a gateway has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from contract import metrics
from deploy.grafana.generate import make_dashboard
from deploy.grafana.queries import expressions_in, metric_names_in, selectors_of

PANEL = {
    "type": "object",
    "required": ["type", "title", "gridPos"],
    "properties": {
        "type": {"enum": ["row", "timeseries", "table", "stat"]},
        "title": {"type": "string", "minLength": 1},
        "gridPos": {
            "type": "object",
            "required": ["h", "w", "x", "y"],
            "properties": {"w": {"maximum": 24}, "x": {"maximum": 23, "minimum": 0}},
        },
        "targets": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "object", "required": ["expr", "refId"]},
        },
    },
}
DASHBOARD = {
    "type": "object",
    "required": ["uid", "title", "schemaVersion", "panels", "templating", "time"],
    "properties": {
        "uid": {"type": "string", "minLength": 8, "maxLength": 40},
        "panels": {"type": "array", "items": PANEL},
    },
}


@pytest.fixture(scope="module")
def board(deploy: Path) -> dict[str, Any]:
    """The dashboard as shipped."""
    found: dict[str, Any] = json.loads((deploy / "grafana" / "dashboard.json").read_text())
    return found


def test_shipped_dashboard_is_the_generated_one(board: dict[str, Any]) -> None:
    """Whoever changes names or panels runs the generator again."""
    assert board == make_dashboard()


def test_dashboard_has_the_form_that_grafana_reads(board: dict[str, Any]) -> None:
    """The keys of a dashboard and of its panels are there, panels lie inside the grid, none over another."""
    jsonschema.validate(board, DASHBOARD)
    cells: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        own = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not own & cells, panel["title"]
        cells |= own


def test_every_expression_parses_and_asks_for_known_series(
    board: dict[str, Any], labels_of: dict[str, frozenset[str]]
) -> None:
    """Each selector names a metric of contract.metrics, with labels that it has."""
    expressions = expressions_in(board)
    assert len(expressions) >= 20
    for expression in expressions:
        for selector in selectors_of(expression):
            assert selector.name in labels_of, expression
            assert {m.name for m in selector.matchers.matchers} <= labels_of[selector.name], expression


def test_every_metric_of_the_gateway_is_on_the_dashboard(board: dict[str, Any]) -> None:
    """Nothing is measured that nobody can see."""
    shown = metric_names_in(board)
    for metric in metrics.ALL:
        assert shown & set(metric.series), metric.name


def test_every_panel_says_what_it_shows(board: dict[str, Any]) -> None:
    """Every panel that is not a row says what it shows, and reads from the chosen data source."""
    for panel in board["panels"]:
        if panel["type"] != "row":
            assert panel["description"]
            assert panel["datasource"]["uid"] == "${datasource}"


def test_an_expression_that_does_not_parse_is_refused() -> None:
    """The checker itself notices broken PromQL."""
    with pytest.raises(ValueError, match=r"."):
        list(selectors_of("sum(rate(sluice_requests_total[5m])"))
