"""A small synthetic family with predictions, and runs drawn from a known queue."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from contract.costs import Cost, write_costs
from contract.family import (
    EncoderSpec,
    Family,
    Latency,
    SliceQuality,
    Split,
    Training,
    Variant,
    Verification,
    artifact_of,
    read_family,
    write_family,
)
from contract.formulas import macro_f1, wilson_interval
from contract.machine import Machine
from contract.policy import Certificate, ClassRule, Expected, Policy, Stage
from contract.predictions import Predictions, VariantPredictions, write_predictions
from contract.run import Summary, write_run
from report.analysis.arms import Arm, compare
from tables.predictions import read_predictions

LABELS = ("business", "entertainment", "politics", "sport", "tech")
MACHINE = Machine(
    cpu="AMD EPYC 9R14", cores=2, memory_bytes=25_000_000_000, isa=("avx512_vnni",), system="Linux 6.8"
)
VARIANTS: dict[str, dict[str, Any]] = {
    "teacher": {"kind": "teacher", "skill": 3.6, "ms": 14.2, "bytes": 90_900_000},
    "teacher-int8": {
        "kind": "quantized", "precision": "int8-dynamic", "parent": "teacher", "skill": 3.5, "ms": 6.1,
        "bytes": 23_100_000,
    },
    "pruned-50": {"kind": "pruned", "parent": "teacher", "skill": 3.3, "ms": 7.4, "bytes": 57_200_000},
    "student-2l": {"kind": "distilled", "parent": "teacher", "skill": 3.2, "ms": 4.4, "bytes": 62_000_000},
    "student-2l-int8": {
        "kind": "quantized", "precision": "int8-dynamic", "parent": "student-2l", "skill": 3.15, "ms": 1.6,
        "bytes": 15_900_000,
    },
    "linear": {"kind": "linear", "parent": "teacher", "skill": 2.6, "ms": 0.11, "bytes": 5_200_000},
}  # fmt: skip


def make_predictions(n: int = 900, seed: int = 7) -> Predictions:
    """Return predictions of all variants: logits that favour the right class by the variant's skill."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, len(LABELS), n)
    hardness = rng.gamma(2.0, 0.5, n)
    shared = rng.normal(size=(n, len(LABELS)))
    found = {}
    for name, facts in VARIANTS.items():
        logits = 0.7 * shared + 0.6 * rng.normal(size=(n, len(LABELS)))
        logits[np.arange(n), label] += facts["skill"] / (0.4 + 0.6 * hardness)
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        confidence = shifted.max(axis=1) / shifted.sum(axis=1)
        found[name] = VariantPredictions(logits.argmax(axis=1), confidence, logits.astype(np.float32))
    split = np.array(["tune"] * (n // 3) + ["certify"] * (n // 3) + ["test"] * (n - 2 * (n // 3)))
    slices = {"short": hardness < 0.8, "long": hardness >= 0.8}
    return Predictions(labels=LABELS, label=label, variants=found, split=split, slices=slices)


def _slice(right: NDArray[np.bool_], teacher: NDArray[np.bool_] | None) -> SliceQuality:
    found = SliceQuality(n=len(right), accuracy=float(right.mean()))
    if teacher is None:
        return found
    delta = float(right.mean() - teacher.mean())
    return found.model_copy(
        update={"accuracy_delta": delta, "accuracy_delta_interval": (delta - 0.02, delta + 0.02)}
    )


@pytest.fixture(scope="session")
def family_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family folder with artifacts, predictions and costs whose figures agree with each other."""
    folder = tmp_path_factory.mktemp("family")
    predictions = make_predictions()
    write_predictions(folder / "predictions.parquet", predictions)
    costs = {name: Cost(f["ms"] * 0.0425 / 3600, f["ms"], f["ms"] * 8 / 3600) for name, f in VARIANTS.items()}
    write_costs(folder / "costs.json", costs)
    test = predictions.rows_of("test")
    teacher = float(test.correct("teacher").mean())
    variants = []
    for name, facts in VARIANTS.items():
        (folder / f"{name}.onnx").write_bytes(name.encode())
        right = test.correct(name)
        accuracy = float(right.mean())
        ms = facts["ms"]
        made = artifact_of(folder, folder / f"{name}.onnx").model_copy(update={"bytes": facts["bytes"]})
        delta = {} if name == "teacher" else {"accuracy_delta": accuracy - teacher}
        variants.append(
            Variant(
                name=name,
                kind=facts["kind"],
                parent=facts.get("parent"),
                runtime="linear" if name == "linear" else "onnx",
                precision=facts.get("precision", "fp32"),
                artifact=made,
                encoder="text",
                accuracy=accuracy,
                accuracy_interval=wilson_interval(int(right.sum()), len(right)),
                **delta,
                macro_f1=macro_f1(test.label, test.variants[name].prediction, len(LABELS)),
                per_class={
                    label: {
                        "recall": float(right[test.label == index].mean()),
                        "n": int((test.label == index).sum()),
                    }
                    for index, label in enumerate(LABELS)
                },
                per_slice={
                    key: _slice(right[mask], None if name == "teacher" else test.correct("teacher")[mask])
                    for key, mask in test.slices.items()
                },
                latency=tuple(
                    Latency(
                        batch=batch, concurrency=at_once, threads=1, n=500, p50_ms=p50, p99_ms=1.4 * p50,
                        mean_tokens=96.0,
                    )
                    for batch, at_once, p50 in ((1, 1, ms), (8, 1, 6.5 * ms), (1, 4, 2.1 * ms))
                ),
                speed_up=VARIANTS["teacher"]["ms"] / ms,
                peak_memory_bytes=int(facts["bytes"] * 1.6),
                energy_wh_per_1k=ms * 8 / 3600,
                energy_provenance="estimated-load",
                usd_per_1k=ms * 0.0425 / 3600,
                ece_after=0.013,
                verification=Verification(
                    label_agreement=0.998, max_logit_error=0.004, n=400, agreement_limit=0.99
                ),
                training=Training(
                    seconds=94.0 if facts["kind"] == "teacher" else 31.0, energy_wh=0.4, gco2e=0.19,
                    energy_provenance="estimated-load",
                ),
            )
        )  # fmt: skip
    write_family(
        folder,
        Family(
            name="bbc-news",
            labels=LABELS,
            teacher="teacher",
            splits={name: Split(n=300, sha256="a" * 64) for name in ("train", "tune", "certify", "test")},
            encoders={"text": EncoderSpec(kind="fake", sha256="b" * 64)},
            variants=tuple(variants),
            predictions=artifact_of(folder, folder / "predictions.parquet"),
            costs=artifact_of(folder, folder / "costs.json"),
            machine=MACHINE,
            created_at="2025-11-22T15:00:00Z",
        ),
    )
    return folder


@pytest.fixture(scope="session")
def family(family_folder: Path) -> Family:
    """The manifest of `family_folder` (its artifact sizes are made up, so hashes alone are checked)."""
    return read_family(family_folder)


@pytest.fixture(scope="session")
def predictions(family_folder: Path) -> Predictions:
    """The predictions of `family_folder`."""
    return read_predictions(family_folder / "predictions.parquet")


@pytest.fixture(scope="session")
def policy(family: Family) -> Policy:
    """A certified cascade of three stages with one class rule."""
    return Policy(
        status="certified",
        reference="teacher",
        stages=(
            Stage(
                variant="linear",
                temperature=1.3,
                threshold=0.82,
                per_class={"sport": ClassRule(threshold=0.7, next="teacher")},
            ),
            Stage(variant="student-2l-int8", temperature=1.1, threshold=0.7),
            Stage(variant="teacher"),
        ),
        certificate=Certificate(
            method="fixed-sequence testing with betting p-values",
            epsilon=0.02,
            delta=0.1,
            n_tune=300,
            n_certify=300,
            seed=0,
            data_sha256="c" * 64,
            variants={v.name: v.artifact.sha256 for v in family.variants[:1]},
            p_value=0.03,
        ),
        expected=Expected(
            accuracy=0.93, accuracy_interval=(0.9, 0.95), accuracy_drop=0.004, escalation_rate=0.31,
            usd_per_1k=0.00005, latency_ms=3.2, energy_wh_per_1k=0.007,
        ),
    ).sealed()  # fmt: skip


RunMaker = Callable[..., Path]


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> RunMaker:
    """Return a function that writes a run of Poisson arrivals through one server of a known service time."""

    def make(
        name: str,
        model: str = "cascade",
        *,
        rate: float = 40.0,
        service_ms: float = 8.0,
        accuracy: float = 0.96,
        seconds: float = 30.0,
        seed: int = 1,
        **summary: Any,
    ) -> Path:
        folder = tmp_path_factory.mktemp("runs") / name
        rng = np.random.default_rng(seed)
        n = int(rate * seconds)
        intended = np.cumsum(rng.exponential(1 / rate, n))
        service = rng.gamma(4, service_ms / 4000, n)
        done = np.zeros(n)
        free = 0.0
        for i in range(n):
            free = max(free, intended[i]) + service[i]
            done[i] = free
        latency = 1000 * (done - intended)
        rows = np.arange(n) % 300
        label = np.array(LABELS)[rows % len(LABELS)]
        right = np.random.default_rng(seed + 100).random(300)[rows] < accuracy
        answer = np.where(right, label, np.array(LABELS)[(rows + 1) % len(LABELS)])
        escalated = np.random.default_rng(seed + 200).random(n) < (0.2 if model == "cascade" else 0.0)
        table = pa.table(
            {
                "id": np.arange(n), "intended_at_s": intended, "sent_at_s": intended, "done_at_s": done,
                "latency_ms": latency, "service_ms": latency, "status": np.full(n, 200), "label": label,
                "answer": answer, "confidence": np.full(n, 0.9), "variant": [model] * n,
                "escalated": escalated, "degraded": np.zeros(n, bool), "model": [model] * n,
                "policy_version": ["v"] * n, "slice": [None] * n, "row": rows,
            }
        )  # fmt: skip
        p99 = float(np.quantile(latency, 0.99))
        hits = int(right.sum())
        goodput = float((latency <= 200).sum() / seconds)
        facts: dict[str, Any] = {
            "model": model, "url": "http://127.0.0.1:8000", "protocol": "v1", "seed": seed,
            "rate_asked_per_s": rate, "rate_held_per_s": n / seconds, "duration_s": seconds, "n": n,
            "errors": 0, "valid": True, "p50_ms": float(np.median(latency)), "p99_ms": p99,
            "p99_interval_ms": (p99 * 0.9, p99 * 1.15), "accuracy": hits / n,
            "accuracy_interval": wilson_interval(hits, n), "slo_ms": 200.0, "goodput_per_s": goodput,
            "escalation_rate": float(escalated.mean()), "degraded_rate": 0.0,
            "usd_per_1k": 1000 * 0.085 / (3600 * goodput), "energy_wh_per_1k": service_ms * 8 / 3600,
            "energy_provenance": "estimated-load", "gco2e_per_1k": service_ms * 8 / 3600 * 0.473,
            "interval_method": "p99 by order statistics, accuracy by Wilson, 95%", "machine": MACHINE,
        }  # fmt: skip
        write_run(folder, table, Summary.model_validate(facts | summary))
        return folder

    return make


@pytest.fixture(scope="session")
def arms(make_run: RunMaker) -> tuple[Arm, ...]:
    """Three arms, each with three runs at 40 requests per second and one at its own capacity."""
    facts = (
        ("teacher only", "teacher", 18.0, 0.965, 48.0),
        ("cheapest single variant", "student-2l-int8", 5.0, 0.955, 170.0),
        ("cascade", "cascade", 4.0, 0.961, 220.0),
    )
    return tuple(
        Arm(
            name,
            model,
            tuple(
                make_run(f"{model}-equal-{i}", model, service_ms=ms, accuracy=accuracy, seconds=12, seed=i)
                for i in range(3)
            ),
            (make_run(f"{model}-capacity", model, service_ms=ms, accuracy=accuracy, rate=rate, seconds=12),),
        )
        for name, model, ms, accuracy, rate in facts
    )


@pytest.fixture(scope="session")
def comparison(arms: tuple[Arm, ...]) -> dict[str, Any]:
    """The comparison of `arms`."""
    return compare(arms)
