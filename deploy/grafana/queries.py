"""What a dashboard, or a rule, asks Prometheus for: expressions, their selectors, and the metrics named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import promql_parser

VARIABLES = {"$__rate_interval": "5m", "$model": "cascade"}


def expressions_in(board: dict[str, Any]) -> list[str]:
    """Return every expression of a dashboard's panels, Grafana's variables replaced by examples."""
    found = []
    for panel in board["panels"]:
        for inner in (panel, *panel.get("panels", [])):
            for target in inner.get("targets", []):
                text = target["expr"]
                for variable, example in VARIABLES.items():
                    text = text.replace(variable, example)
                found.append(text)
    return found


def selectors_of(expression: str) -> Iterator[promql_parser.VectorSelector]:
    """Yield every series selector of a PromQL expression. Raises ValueError when it does not parse."""
    todo: list[Any] = [promql_parser.parse(expression)]
    while todo:
        node = todo.pop()
        if isinstance(node, promql_parser.VectorSelector):
            yield node
        elif isinstance(node, promql_parser.MatrixSelector):
            todo.append(node.vector_selector)
        else:
            todo += [child for child in _children(node) if child is not None]


def _children(node: Any) -> Iterable[Any]:
    if isinstance(node, promql_parser.BinaryExpr):
        return [node.lhs, node.rhs]
    if isinstance(node, promql_parser.AggregateExpr):
        return [node.expr, node.param]
    if isinstance(node, promql_parser.Call):
        return list(node.args)
    if isinstance(node, promql_parser.ParenExpr | promql_parser.UnaryExpr | promql_parser.SubqueryExpr):
        return [node.expr]
    return []


def metric_names_in(board: dict[str, Any]) -> set[str]:
    """Return the sample names that a dashboard needs; a live scrape should hold every one."""
    return {str(s.name) for expression in expressions_in(board) for s in selectors_of(expression)}
