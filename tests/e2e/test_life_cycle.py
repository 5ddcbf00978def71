"""Starting, interrupting and going on: nothing stays behind, nothing is half-written."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Demo, Sluice
from tests.ports import free_port

pytestmark = pytest.mark.e2e


def _wait_for_words(process: subprocess.Popen[str], pattern: str, *, limit_s: float = 240) -> str:
    """Read stderr until the pattern occurs and return all that was read."""
    assert process.stderr is not None
    said = ""
    until = time.monotonic() + limit_s
    descriptor = process.stderr.fileno()
    while time.monotonic() < until:
        if select.select([descriptor], [], [], 1.0)[0]:
            chunk = os.read(descriptor, 65536).decode(errors="replace")
            if not chunk:
                break
            said += chunk
            if re.search(pattern, said):
                return said
    pytest.fail(f"never said {pattern!r}; said:\n{said[-4000:]}")


def _classify(url: str, model: str, texts: list[str]) -> list[dict[str, Any]]:
    """Return what a model says of some texts; an error unless it answers 200."""
    body = json.dumps({"inputs": texts, "model": model}).encode()
    request = urllib.request.Request(f"{url}/v1/classify", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            outputs: list[dict[str, Any]] = json.load(reply)["outputs"]
    except urllib.error.HTTPError as refused:
        pytest.fail(f"{refused.code}: {refused.read().decode()}")
    return outputs


def _wait_until_queued(url: str, variant: str, more_than: int, *, limit_s: float = 30) -> None:
    """Return once /metrics says that more texts than these wait for a variant."""
    waiting = re.compile(rf'^sluice_queue_items{{[^}}]*variant="{variant}"}} (\d+)', re.MULTILINE)
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as page:
            if sum(map(int, waiting.findall(page.read().decode()))) > more_than:
                return
    pytest.fail(f"never more than {more_than} waited for {variant}")


def _half_written(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.name.endswith((".tmp", ".partial"))]


@pytest.mark.ray
def test_the_fake_gateway_needs_no_weights_and_drains_on_sigterm(alone: Sluice) -> None:
    """`serve --fake` answers what is in hand at SIGTERM in full, ends with 0, and leaves no process."""
    port, admin = free_port(), free_port()
    process = alone.start(
        "serve",
        "--fake",
        "--fake-delay-ms",
        "60",
        "--port",
        str(port),
        "--admin-port",
        str(admin),
        "--state",
        alone.cwd / "fake-state",
    )
    url = f"http://127.0.0.1:{port}"
    _wait_for_words(process, "ready at")
    few, many = ([f"story {n}" for n in range(count)] for count in (40, 100))
    with ThreadPoolExecutor(2) as aside:
        cascaded = aside.submit(_classify, url, "cascade", few)
        _wait_until_queued(url, "fake-large", 0)
        direct = aside.submit(_classify, url, "fake-large", many)
        _wait_until_queued(url, "fake-large", len(few))
        assert not direct.done()
        process.send_signal(signal.SIGTERM)
        for asked, texts in ((cascaded, few), (direct, many)):
            outputs = asked.result(60)
            assert len(outputs) == len(texts)
            assert not any(output["degraded"] for output in outputs)
            assert any(output["variant"] == "fake-large" for output in outputs)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err[-3000:]
    assert alone.leftovers() == []


@pytest.mark.ray
def test_sigterm_while_the_gateway_starts_leaves_nothing(alone: Sluice) -> None:
    """SIGTERM in the middle of start-up ends every process that was started, with code 0."""
    process = alone.start("serve", "--fake", "--port", str(free_port()), "--admin-port", str(free_port()))
    _wait_for_words(process, "(?i)starting")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert alone.leftovers() == []


def test_ctrl_c_while_training_keeps_finished_steps(alone: Sluice, tmp_path: Path) -> None:
    """An interrupt during training leaves no process and no half-written file."""
    process = alone.start("demo", "--quick", "--out", tmp_path / "demo")
    _wait_for_words(process, "(?i)done.*data")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert alone.leftovers() == []
    assert _half_written(tmp_path) == []


@pytest.mark.ray
def test_a_second_demo_reuses_the_family_and_ctrl_c_under_load_leaves_nothing(
    alone: Sluice, demo: Demo
) -> None:
    """The second run trains nothing again; an interrupt under load ends gateway, HAProxy and Locust."""
    before = (demo.family / "family.json").read_bytes()
    process = alone.start("demo", "--quick", "--out", demo.folder)
    _wait_for_words(process, "(?i)load")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert alone.leftovers() == []
    assert _half_written(demo.folder) == []
    assert (demo.family / "family.json").read_bytes() == before


def test_serving_on_a_taken_port_fails_clearly(alone: Sluice) -> None:
    """A port that is taken is named, with what to do, and nothing stays behind."""
    import socket

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        done = alone.run(
            "serve", "--fake", "--port", str(port), "--admin-port", str(free_port()), timeout_s=90
        )
    assert done.returncode == 1
    assert str(port) in done.stderr
    assert alone.leftovers() == []


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_installed_fails_at_start(alone: Sluice, provider: str) -> None:
    """Asking for a GPU that this installation cannot use is an error that says what to install."""
    done = alone.run("serve", "--fake", "--provider", provider, "--port", str(free_port()), timeout_s=90)
    assert done.returncode == 1
    assert provider in done.stderr.lower()
    assert "gpu" in done.stderr.lower()


def test_help_is_quick_and_imports_neither_torch_nor_ray(alone: Sluice) -> None:
    """`sluice --help` loads no heavy package; every sub-command has help with an example."""
    code = """
import contextlib, io, json, sys
from sluicegate.main import main

def shown(*arguments):
    sys.argv = ["sluice", *arguments, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main()
    return out.getvalue()

first = shown()
heavy = {"torch", "ray", "numpy", "transformers", "onnxruntime", "pyarrow"} & set(sys.modules)
names = [line.split()[0] for line in first.partition("Commands:")[2].splitlines() if line[2:3].strip()]
print(json.dumps([sorted(heavy), {name: shown(name) for name in names}]))
"""
    python = alone.executable.parent / "python"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, cwd=alone.cwd)
    heavy, pages = json.loads(done.stdout)
    assert heavy == []
    assert len(pages) >= 12
    assert [name for name, page in pages.items() if "Example" not in page] == []


def test_tune_and_simulate_need_only_two_files(alone: Sluice, tmp_path: Path) -> None:
    """A predictions table and costs are enough to get a policy and to replay it."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 3000)
    sure = rng.random(3000)
    small = np.where(rng.random(3000) < 0.6 + 0.4 * sure, label, (label + 1) % 3)
    large = np.where(rng.random(3000) < 0.97, label, (label + 1) % 3)
    table = {
        "label": label, "small/prediction": small, "small/confidence": sure,
        "large/prediction": large, "large/confidence": np.full(3000, 0.9),
    }  # fmt: skip
    pq.write_table(pa.table(table), tmp_path / "p.parquet")
    (tmp_path / "c.json").write_text('{"small": {"usd_per_1k": 1}, "large": {"usd_per_1k": 10}}')
    given: list[str | Path] = ["--predictions", tmp_path / "p.parquet", "--costs", tmp_path / "c.json"]
    tuned = alone.run(
        "tune", *given, "--max-accuracy-drop", "0.03", "--confidence", "0.9", "--json",
        "--out", tmp_path / "policy.json",
    )  # fmt: skip
    assert tuned.returncode == 0, tuned.stderr
    policy = json.loads(tuned.stdout)
    assert policy["status"] == "certified"
    assert policy == json.loads((tmp_path / "policy.json").read_text())
    replayed = alone.run("simulate", *given, "--policy", tmp_path / "policy.json", "--json")
    assert replayed.returncode == 0, replayed.stderr
    figures = json.loads(replayed.stdout)
    assert figures["n"] == 3000
    assert figures["accuracy_drop"] <= 0.03
    assert 1 <= figures["usd_per_1k"] < 10
