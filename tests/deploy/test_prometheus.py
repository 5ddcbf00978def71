"""Alerts and recording rules: they parse, ask only for what is there, and fire on what they say."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from contract import metrics
from deploy.grafana.queries import selectors_of

PROMTOOL = shutil.which("promtool")


@pytest.fixture(scope="module")
def rules(deploy: Path) -> list[dict[str, Any]]:
    """Every rule of the file."""
    groups = yaml.safe_load((deploy / "prometheus" / "rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _promtool(*arguments: str, given: bytes = b"") -> str:
    """Return the complaints of promtool, "" when it has none; call it where PROMTOOL is there."""
    tool = PROMTOOL or "promtool"
    done = subprocess.run([tool, *arguments], input=given, capture_output=True, check=False, timeout=60)
    return "" if done.returncode == 0 else (done.stdout + done.stderr).decode()


def test_expressions_ask_only_for_metrics_and_labels_that_exist(
    rules: list[dict[str, Any]], labels_of: dict[str, frozenset[str]]
) -> None:
    """Each selector names a metric of contract.metrics or a rule of this file, with labels that it has."""
    recorded = {rule["record"]: frozenset({"job", "instance"}) for rule in rules if "record" in rule}
    known = labels_of | recorded
    for rule in rules:
        for selector in selectors_of(rule["expr"]):
            assert selector.name in known, f"{selector.name} in {rule['expr']}"
            used = {matcher.name for matcher in selector.matchers.matchers}
            assert used <= known[selector.name], f"{used} of {selector.name}"


def test_outcomes_and_objective_are_those_of_the_contract(rules: list[dict[str, Any]]) -> None:
    """Outcomes that rules select exist, and the objective is an edge of the histogram."""
    text = "\n".join(rule["expr"] for rule in rules)
    for selected in re.findall(r'outcome(?:=~|!=|=)"([^"]+)"', text):
        assert set(selected.split("|")) <= set(metrics.OUTCOMES)
    assert {float(edge) for edge in re.findall(r'le="([^"]+)"', text)} <= set(metrics.LATENCY_BUCKETS_S)


def test_every_alert_on_a_ratio_has_a_floor_on_traffic(rules: list[dict[str, Any]]) -> None:
    """No alert that divides by traffic can fire without any."""
    for rule in rules:
        if "alert" in rule and "ratio" in rule["expr"]:
            assert "texts:rate30m > " in rule["expr"] or 'outcome="ok"}[30m])) > ' in rule["expr"]


def test_every_alert_says_how_bad_it_is_and_what_to_do(rules: list[dict[str, Any]], deploy: Path) -> None:
    """Each alert has a severity, a summary, and a heading in the operator's guide."""
    guide = (deploy.parent / "docs" / "operating.md").read_text()
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in guide.splitlines()
        if line.startswith("#")
    }
    alerts = [rule for rule in rules if "alert" in rule]
    assert len(alerts) >= 14
    for rule in alerts:
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert page == "docs/operating.md"
        assert anchor in anchors, anchor


def test_every_alert_has_a_unit_test(rules: list[dict[str, Any]], deploy: Path) -> None:
    """The promtool tests name every alert."""
    cases = yaml.safe_load((deploy / "prometheus" / "rules.test.yaml").read_text())["tests"]
    tested = {case["alertname"] for test in cases for case in test.get("alert_rule_test", [])}
    assert tested == {rule["alert"] for rule in rules if "alert" in rule}


def test_every_expression_is_promql(rules: list[dict[str, Any]], deploy: Path) -> None:
    """With or without promtool, every expression of rules and tests parses; nonsense does not."""
    with pytest.raises(ValueError, match=r"\S"):
        promql_parser.parse("sum(rate(x[5m])")
    cases = yaml.safe_load((deploy / "prometheus" / "rules.test.yaml").read_text())["tests"]
    asked = [check["expr"] for case in cases for check in case.get("promql_expr_test", [])]
    assert asked
    for expression in [*(rule["expr"] for rule in rules), *asked]:
        assert promql_parser.parse(expression) is not None


def test_rules_and_configuration_are_accepted(rules: list[dict[str, Any]], deploy: Path) -> None:
    """Promtool, where it is, finds no fault and sees the rules fire; elsewhere their shape is checked."""
    folder = deploy / "prometheus"
    if PROMTOOL is None:
        for rule in rules:
            assert len({"alert", "record"} & set(rule)) == 1
            assert set(rule) <= {"alert", "record", "expr", "for", "keep_firing_for", "labels", "annotations"}
            for key in {"for", "keep_firing_for"} & set(rule):
                assert re.fullmatch(r"(\d+(ms|[smhdwy]))+", rule[key])
        return
    assert _promtool("check", "rules", str(folder / "rules.yaml")) == ""
    assert _promtool("check", "config", str(folder / "prometheus.yml")) == ""
    assert _promtool("test", "rules", str(folder / "rules.test.yaml")) == ""


def test_scrape_job_is_the_one_that_rules_look_for(deploy: Path) -> None:
    """The example's job name is the name in the rules, and it reads these rules."""
    config = yaml.safe_load((deploy / "prometheus" / "prometheus.yml").read_text())
    assert [job["job_name"] for job in config["scrape_configs"]] == ["sluicegate"]
    assert config["rule_files"] == ["rules.yaml"]
    assert 'job="sluicegate"' in (deploy / "prometheus" / "rules.yaml").read_text()


def test_metric_names_follow_the_conventions_of_prometheus() -> None:
    """A page with every metric of the contract follows the naming rules and holds every series promised."""
    registry = CollectorRegistry()
    for metric in metrics.ALL:
        if metric.kind == "histogram":
            Histogram(metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=registry)
        elif metric.kind == "counter":
            Counter(metric.name.removesuffix("_total"), metric.help, metric.labels, registry=registry)
        else:
            Gauge(metric.name, metric.help, metric.labels, registry=registry)
    page = generate_latest(registry)
    if PROMTOOL is not None:
        assert _promtool("check", "metrics", given=page) == ""
    for metric in metrics.ALL:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", metric.name)
        assert metric.help
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert not {"le", "quantile", "job", "instance"} & set(metric.labels)
    assert all(f"# TYPE {metric.name} {metric.kind}".encode() in page for metric in metrics.ALL)
