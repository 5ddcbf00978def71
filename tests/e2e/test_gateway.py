"""The real gateway on Ray with the quick family, driven by clients that are not ours."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import tritonclient.http as triton
from prometheus_client.parser import text_string_to_metric_families

from contract import metrics
from contract.costs import read_costs
from contract.family import read_family
from contract.files import inside
from contract.policy import read_policy
from contract.run import read_requests, read_summary
from router.decide.simulate import simulate
from tables.predictions import read_predictions
from tests.e2e.conftest import Demo, Running, Sluice

pytestmark = [pytest.mark.e2e, pytest.mark.ray]


def _post(url: str, body: bytes | dict[str, Any]) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


def _held_out(demo: Demo, split: str = "test") -> tuple[list[str], list[str]]:
    family = read_family(demo.family)
    assert family.data is not None
    table = pq.read_table(inside(demo.family, family.data.path))
    rows = table.filter(pc.equal(table["split"], split))
    return rows["text"].to_pylist(), rows["label"].to_pylist()


def test_the_demo_leaves_a_family_a_policy_runs_and_a_report(demo: Demo) -> None:
    """The quick demo ends with everything that the next commands need, and says where it is."""
    result = json.loads(demo.output)
    family = read_family(demo.family)
    kinds = {v.kind for v in family.variants}
    assert {"teacher", "distilled", "pruned", "quantized", "linear"} <= kinds
    policy = read_policy(demo.policy)
    assert policy.status == {0: "certified", 3: "no_safe_threshold"}[demo.code]
    assert (demo.folder / "report.html").read_text().lower().startswith("<!doctype html>")
    assert set(result["paths"]) >= {"family", "policy", "report"}
    assert {arm["arm"] for arm in result["table"]} == {"teacher", "single", "cascade"}
    for variant in family.variants:
        assert variant.accuracy is not None
        assert variant.accuracy_interval is not None
        assert variant.latency_at(batch=1) is not None
        assert variant.verification is not None or variant.kind == "linear", "arrays are served as trained"
        assert variant.energy_provenance != "none" or variant.energy_wh_per_1k is None


def test_tritonclient_works_unchanged(gateway: Running, demo: Demo) -> None:
    """tritonclient reads metadata and health, and infers, in binary form, on the cascade and each variant."""
    client = triton.InferenceServerClient(gateway.url.removeprefix("http://"))
    texts, _ = _held_out(demo)
    family = read_family(demo.family)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["name"]
    for model in ("cascade", *family.names):
        assert client.is_model_ready(model)
        assert {o["name"] for o in client.get_model_metadata(model)["outputs"]} >= {"label", "confidence"}
        tensor = triton.InferInput("text", [3], "BYTES")
        tensor.set_data_from_numpy(np.array([t.encode() for t in texts[:3]], dtype=np.object_))
        reply = client.infer(model, [tensor], request_id="r1")
        assert reply.get_response()["id"] == "r1"
        labels = [label.decode() for label in reply.as_numpy("label")]
        assert set(labels) <= set(family.labels)
        assert reply.as_numpy("confidence").dtype == np.float32
        if model != "cascade":
            probabilities = reply.as_numpy("probabilities")
            assert probabilities.shape == (3, len(family.labels))
            np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-4)


def test_http_answers_agree_with_simulate_row_for_row(gateway: Running, demo: Demo) -> None:
    """Every held-out text gets over HTTP the answer, variant and escalation that the replay says."""
    family = read_family(demo.family)
    assert family.predictions is not None
    assert family.costs is not None
    predictions = read_predictions(inside(demo.family, family.predictions.path), labels=family.labels)
    costs = read_costs(inside(demo.family, family.costs.path))
    expected = simulate(predictions.rows_of("test"), costs, read_policy(demo.policy)).answers()
    texts, _ = _held_out(demo)
    assert len(texts) == len(expected)
    got = []
    for start in range(0, len(texts), 16):
        status, reply = _post(f"{gateway.url}/v1/classify", {"inputs": texts[start : start + 16]})
        assert status == 200, reply
        got += reply["outputs"]
    differing = [
        (text[:60], want, have)
        for text, want, have in zip(texts, expected, got, strict=True)
        if any(want[key] != have[key] for key in ("label", "variant", "escalated"))
    ]
    assert not any(answer["degraded"] for answer in got)
    assert len(differing) <= 0.001 * len(texts), differing
    np.testing.assert_allclose([a["confidence"] for a in got], [a["confidence"] for a in expected], atol=2e-3)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"not json", 400),
        (b"", 400),
        (b"[1, 2]", 400),
        (b'{"inputs": 7}', 400),
        (b'{"inputs": []}', 400),
        (b'{"inputs": ["a", 1]}', 400),
        (b'{"inputs": "a", "model": "nobody"}', 404),
        (b'{"inputs": "a", "model": "../../etc/passwd"}', 404),
        (b'{"inputs": "\xff\xfe"}', 400),
        (b"[" * 1000 + b"]" * 1000, 400),
        (b'{"inputs": "' + b"a" * 40_000_000 + b'"}', 413),
        (b'{"inputs": "a", "deadline_ms": "soon"}', 400),
        (b'{"inputs": "a", "top_k": -1}', 400),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else str(value),
)
def test_wrong_input_is_refused_clearly_and_the_service_goes_on(
    gateway: Running, body: bytes, status: int
) -> None:
    """Wrong bodies get the 4xx that fits with an `error`, and the next request is answered."""
    try:
        code, reply = _post(f"{gateway.url}/v1/classify", body)
        assert code == status, reply
        assert isinstance(reply["error"], str)
    except urllib.error.URLError:
        assert status == 413, "only a body that is far too large may be cut off"
    assert _post(f"{gateway.url}/v1/classify", {"inputs": "profits rose"})[0] == 200


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [2]},
        {"shape": [-1]},
        {"shape": [2**62, 4]},
        {"datatype": "FP32"},
        {"name": "image"},
        {"data": None},
        {"data": [1]},
        {"data": [["a", "b"]]},
    ],
    ids=str,
)
def test_wrong_tensors_are_refused_clearly(gateway: Running, change: dict[str, Any]) -> None:
    """Shapes, types, names and data that do not fit get a 400 with an `error`."""
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["x"]} | change
    code, reply = _post(f"{gateway.url}/v2/models/cascade/infer", {"inputs": [tensor]})
    assert code == 400, reply
    assert isinstance(reply["error"], str)


def test_unknown_paths_and_methods_keep_the_error_form(gateway: Running) -> None:
    """404 and 405 carry `error`, as every refusal does."""
    for path, method, status in (("/nowhere", "GET", 404), ("/v1/classify", "GET", 405)):
        request = urllib.request.Request(gateway.url + path, method=method)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        assert refused.value.code == status
        assert "error" in json.load(refused.value)


def _scrape(url: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as reply:
        families = text_string_to_metric_families(reply.read().decode())
        return {f"{s.name}{sorted(s.labels.items())}": s.value for family in families for s in family.samples}


def test_counters_are_exact_over_all_replicas(gateway: Running) -> None:
    """The number of texts sent is the number counted, whichever replica answers the scrape."""

    def counted() -> float:
        return sum(v for k, v in _scrape(gateway.url).items() if k.startswith(metrics.REQUESTS.name))

    before = counted()
    for _ in range(20):
        assert _post(f"{gateway.url}/v1/classify", {"inputs": ["a", "b"]})[0] == 200
    assert {counted() for _ in range(6)} == {before + 40}


def test_locust_drives_the_gateway_and_the_answers_are_those_of_the_family(
    gateway: Running, demo: Demo, sluice: Sluice
) -> None:
    """`sluice loadtest` writes a whole run whose accuracy is the accuracy of its own rows."""
    family = read_family(demo.family)
    assert family.data is not None
    out = sluice.cwd / "run"
    done = sluice.run(
        "loadtest", gateway.url, "--data", inside(demo.family, family.data.path), "--rate", "10",
        "--duration", "6", "--seed", "3", "--slo-ms", "200", "--json", "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    summary = read_summary(out)
    rows = read_requests(out).to_pydict()
    assert json.loads(done.stdout)["n"] == summary.n == len(rows["id"])
    assert summary.errors == 0
    assert set(rows["status"]) == {200}
    right = [a == b for a, b in zip(rows["answer"], rows["label"], strict=True)]
    assert summary.accuracy == pytest.approx(np.mean(right))
    assert summary.escalation_rate == pytest.approx(np.mean(rows["escalated"]))
    late = np.array(rows["latency_ms"]) - np.array(rows["service_ms"])
    assert (late >= -1e-6).all()


def test_a_pushed_policy_is_served_and_rolled_back(
    gateway: Running, demo: Demo, sluice: Sluice, tmp_path: Path
) -> None:
    """A policy pushed while serving answers the next request; rolling back brings the old one again."""
    before = _post(f"{gateway.url}/v1/classify", {"inputs": "x"})[1]["policy_version"]
    assert before == read_policy(demo.policy).version
    teacher = read_family(demo.family).teacher
    mine = tmp_path / "mine.json"
    mine.write_text(
        json.dumps(
            {"schema": 1, "status": "uncertified", "reference": teacher, "stages": [{"variant": teacher}]}
        )
    )
    pushed = sluice.run("policy", "push", mine, "--admin-url", gateway.admin_url, "--json")
    assert pushed.returncode == 0, pushed.stderr
    reply = _post(f"{gateway.url}/v1/classify", {"inputs": "x"})[1]
    assert reply["policy_version"] != before
    assert reply["outputs"][0]["variant"] == teacher
    history = json.loads(sluice.run("policy", "history", "--admin-url", gateway.admin_url, "--json").stdout)
    numbers = [entry["number"] for entry in history]
    back = sluice.run("policy", "rollback", str(min(numbers)), "--admin-url", gateway.admin_url)
    assert back.returncode == 0, back.stderr
    assert _post(f"{gateway.url}/v1/classify", {"inputs": "x"})[1]["policy_version"] == before


def test_a_policy_that_does_not_fit_is_refused_and_nothing_changes(
    gateway: Running, sluice: Sluice, tmp_path: Path
) -> None:
    """A policy that names an absent variant is refused by name, and the old one goes on."""
    before = _post(f"{gateway.url}/v1/classify", {"inputs": "x"})[1]["policy_version"]
    bad = tmp_path / "bad.json"
    bad.write_text('{"schema": 1, "status": "uncertified", "reference": "q", "stages": [{"variant": "q"}]}')
    refused = sluice.run("policy", "push", bad, "--admin-url", gateway.admin_url)
    assert refused.returncode == 1
    assert "'q'" in refused.stderr
    assert _post(f"{gateway.url}/v1/classify", {"inputs": "x"})[1]["policy_version"] == before


WHERE_USED = (
    *(metrics.ARM_REQUESTS, metrics.ARM_TEXTS, metrics.ARM_ESCALATED, metrics.ARM_DEGRADED),
    *(metrics.ARM_DURATION, metrics.ARM_USD, metrics.ARM_PAIRS),
    *(metrics.LIMITED, metrics.STAGE_RETRIES, metrics.STAGE_HEDGES, metrics.STAGE_BREAKER),
    *(metrics.CLIENTS_LEFT, metrics.REMOTE_FAILURES, metrics.REMOTE_USD, metrics.GEAR),
)
"""What appears once there are trials, limits, failures, leaving clients, remote models, gears; with tests."""


def test_every_dashboard_metric_is_in_a_live_scrape(gateway: Running, demo: Demo) -> None:
    """What the dashboard and the rules draw and alert on exists in the gateway's own /metrics."""
    from deploy.grafana.queries import metric_names_in

    dashboard = json.loads(
        (Path(__file__).resolve().parents[2] / "deploy/grafana/dashboard.json").read_text()
    )
    _post(f"{gateway.url}/v1/classify", {"inputs": _held_out(demo)[0][:250]})
    missing = metric_names_in(dashboard) - {series for metric in WHERE_USED for series in metric.series}
    until = time.monotonic() + 15  # the energy meter's first reading comes some seconds after the start
    while missing and time.monotonic() < until:
        missing -= {key.split("[")[0] for key in _scrape(gateway.url)}
    assert missing == set()
