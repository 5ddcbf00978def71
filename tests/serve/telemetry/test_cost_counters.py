"""Money in the metrics: each stage that ran is charged, to who asked, and the sum is the simulation's."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from serve.telemetry.metrics import Telemetry
from serve.types.prices import Prices
from serve.types.recorder import BatchRecord, RequestRecord

PRICES = Prices({"small": 0.001, "large": 0.01}, "large")


def usd(telemetry: Telemetry, key: str, variant: str) -> float:
    """The counter's value."""
    value = telemetry.registry.get_sample_value(
        "sluice_usd_total", {"family": "", "key": key, "variant": variant}
    )
    return value or 0.0


def saved(telemetry: Telemetry) -> float:
    """The counter's value."""
    return telemetry.registry.get_sample_value("sluice_saved_usd_total", {"family": ""}) or 0.0


def cascade(texts: int, escalated: int, caller: str = "") -> RequestRecord:
    """An answered request of which some texts went on to the large variant."""
    variants = ["large"] * escalated + ["small"] * (texts - escalated)
    escalations = [("small", "large", escalated)] if escalated else []
    return RequestRecord(
        "cascade", variants, [0.9] * texts, 0.004, escalations=escalations, caller=caller, first="small",
        prices=PRICES,
    )  # fmt: skip


def test_an_escalated_text_pays_for_both_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first stage ran on all four texts, the second on one of them; without a key, `none` pays."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    telemetry = Telemetry()
    telemetry.answered(cascade(4, 1))
    assert usd(telemetry, "none", "small") == pytest.approx(0.004)
    assert usd(telemetry, "none", "large") == pytest.approx(0.01)
    assert saved(telemetry) == pytest.approx(4 * 0.01 - 0.014)


def test_a_loss_is_taken_off_what_is_saved_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all escalate, the reference alone would have been cheaper: the counter waits, and never falls."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    telemetry = Telemetry()
    telemetry.answered(cascade(2, 2))
    assert saved(telemetry) == 0.0
    telemetry.answered(cascade(1, 0))
    assert saved(telemetry) == pytest.approx(0.009 - 0.002)


def test_what_a_server_elsewhere_charges_is_no_saving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons off the path are paid for too; and a degraded answer stands for none of the reference's."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    telemetry = Telemetry()
    charged = BatchRecord("large", 3, (), 0.3, 0.0, 0.0, charged_usd=0.03)
    telemetry.batch(charged)
    telemetry.answered(cascade(10, 1))
    assert saved(telemetry) == pytest.approx(10 * 0.01 - 10 * 0.001 - 0.03)

    before = saved(telemetry)
    telemetry.answered(replace(cascade(4, 0), degraded=[("overloaded", 4)]))
    telemetry.answered(cascade(1, 0))
    assert saved(telemetry) == pytest.approx(before - 0.004 + 0.009)

    before = saved(telemetry)
    telemetry.batch(BatchRecord("large", 1, (), 0.3, 0.0, 0.0, charged_usd=0.01))
    telemetry.answered(RequestRecord("large", ["large"], [0.9], 0.3, first="large", prices=PRICES))
    telemetry.answered(cascade(1, 0))
    assert saved(telemetry) == pytest.approx(before + 0.009)


def test_who_asks_for_a_variant_by_name_pays_and_saves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saving is the router's; a variant asked for by name is the client's own choice."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    telemetry = Telemetry()
    record = RequestRecord("small", ["small"], [0.9], 0.004, caller="shop", first="small", prices=PRICES)
    telemetry.answered(record)
    assert usd(telemetry, "shop", "small") == pytest.approx(0.001)
    assert saved(telemetry) == 0.0


def test_what_has_no_price_is_left_out() -> None:
    """A stage without a price is not counted as free: it has no series."""
    prices = Prices({"large": 0.01}, "small")
    assert prices.charges([("small", 4), ("large", 1)]) == {"large": 0.01}
    assert prices.reference_usd is None


WRITE = """
from serve.telemetry.metrics import Telemetry
from serve.types.prices import Prices
from serve.types.recorder import RequestRecord
t = Telemetry()
record = RequestRecord("cascade", ["small"], [0.9], 0.004, caller="shop", first="small",
                       prices=Prices({"small": 0.001, "large": 0.01}, "large"))
for _ in range(50):
    t.answered(record)
"""
READ = (
    "import sys; from serve.telemetry.metrics import Telemetry; print(Telemetry().render(0, None).decode())"
)


def test_money_adds_up_over_processes_that_have_ended(tmp_path: Path) -> None:
    """Two processes with fifty requests each: a hundred prices, and a hundred savings."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", WRITE], env=environment, check=True)
    page = subprocess.run(
        [sys.executable, "-c", READ], env=environment, check=True, capture_output=True, text=True
    ).stdout
    samples = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#") and line)
    assert float(samples['sluice_usd_total{family="",key="shop",variant="small"}']) == pytest.approx(0.1)
    assert float(samples['sluice_saved_usd_total{family=""}']) == pytest.approx(0.9)
