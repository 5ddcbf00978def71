"""A complete family of fakes on disk: manifest, artifacts, data, predictions and costs, without weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from contract.costs import COSTS, Cost, write_costs
from contract.family import Artifact, Family, Latency, Split, Variant, artifact_of, write_family
from contract.files import atomic_path, sha256_of_json, write_json
from contract.formulas import usd_per_1k_from_seconds, wilson_interval
from contract.predictions import PREDICTIONS, Predictions, VariantPredictions, write_predictions
from contract.prices import load_prices
from runtime.fake import FAKE_ENCODER, FakeEncoder, FakeModel, FakeRuntime, true_label
from runtime.fake_faults import FakeFaults

LABELS = ("business", "entertainment", "politics", "sport", "tech")
SPLITS = {"tune": 0.3, "certify": 0.4, "test": 0.3}


@dataclass(frozen=True)
class _Plan:
    name: str
    accuracy: float
    relative_delay: float


_PLANS = (_Plan("fake-small", 0.90, 1), _Plan("fake-other", 0.93, 3), _Plan("fake-large", 0.97, 10))
TEACHER = "fake-large"


def write_fake_family(
    folder: Path,
    *,
    labels: tuple[str, ...] = LABELS,
    delay_ms: float | Mapping[str, float] = 1.0,
    error_rate: float | Mapping[str, float] = 0.0,
    faults: Mapping[str, FakeFaults] | None = None,
    seed: int = 0,
    rows: int = 3000,
    name: str = "fake",
) -> Family:
    """Write a valid family of three fakes and return its manifest.

    Args:
        folder: created if missing; files of an earlier fake family are replaced.
        labels: the label set.
        delay_ms: time per text of `fake-small` (`fake-other` takes 3 times, `fake-large` 10 times as
            long), or by variant.
        error_rate: share of calls that fail, of all variants or by variant.
        faults: what else goes wrong, by variant.
        seed: of difficulties, errors and data.
        rows: labelled texts, "LABEL: story N", over the splits tune, certify and test.
        name: of the family.
    """
    splits = np.repeat(list(SPLITS), [int(rows * share) for share in SPLITS.values()])
    texts, truth = _data(labels, len(splits), seed)
    data = folder / "data.parquet"
    with atomic_path(data) as temporary:
        columns = {"text": texts, "label": [labels[i] for i in truth], "split": splits.tolist()}
        pq.write_table(pa.table(columns), temporary)
    models = {
        plan.name: FakeModel(
            labels=labels,
            accuracy=plan.accuracy,
            delay_ms=_of(delay_ms, plan.name, plan.relative_delay),
            error_rate=_of(error_rate, plan.name),
            faults=(faults or {}).get(plan.name, FakeFaults()),
            seed=seed,
        )
        for plan in _PLANS
    }
    for variant, model in models.items():
        write_json(_artifact(folder, variant), model.model_dump(mode="json"))
    encoded = FakeEncoder().encode(texts)
    seen = {name: _answers(_harmless(model).logits(encoded)) for name, model in models.items()}
    costs = {plan.name: _cost(models[plan.name].delay_ms, plan) for plan in _PLANS}
    predictions = folder / PREDICTIONS
    write_predictions(
        predictions, Predictions(labels=labels, label=truth, variants=seen, split=splits.astype(np.str_))
    )
    write_costs(folder / COSTS, costs)
    test = splits == "test"
    family = Family(
        name=name,
        labels=labels,
        teacher=TEACHER,
        splits={name: _split([texts[i] for i in np.flatnonzero(splits == name)]) for name in SPLITS},
        encoders={"fake": FAKE_ENCODER},
        variants=tuple(
            _variant(
                name,
                artifact_of(folder, _artifact(folder, name)),
                int((answers.prediction == truth)[test].sum()),
                int(test.sum()),
                costs[name],
            )
            for name, answers in seen.items()
        ),
        predictions=artifact_of(folder, predictions),
        costs=artifact_of(folder, folder / COSTS),
        data=artifact_of(folder, data),
    )
    write_family(folder, family)
    return family


def _of(given: float | Mapping[str, float], name: str, times: float = 1.0) -> float:
    """Return one variant's figure: `times` the one for all, or its own, 0 where it is not named."""
    return given.get(name, 0.0) if isinstance(given, Mapping) else given * times


def _artifact(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _harmless(model: FakeModel) -> FakeRuntime:
    """Return the model without its delay, errors and faults: what it answers is the same."""
    return FakeRuntime(model.model_copy(update={"delay_ms": 0.0, "error_rate": 0.0, "faults": FakeFaults()}))


def _cost(delay_ms: float, plan: _Plan) -> Cost:
    """Return what an answer costs by its delay.

    Where there is none, a tenth of a millisecond stands in, so that stages still differ.
    """
    latency_ms = delay_ms or plan.relative_delay * 0.1
    usd = usd_per_1k_from_seconds(latency_ms, load_prices().usd_per_core_hour)
    return Cost(usd_per_1k=usd, latency_ms=latency_ms)


def _split(texts: list[str]) -> Split:
    return Split(n=len(texts), sha256=sha256_of_json(texts))


def _variant(name: str, artifact: Artifact, right: int, tested: int, cost: Cost) -> Variant:
    assert cost.latency_ms is not None
    timed = Latency(batch=1, concurrency=1, threads=1, n=1, p50_ms=cost.latency_ms, p99_ms=cost.latency_ms)
    return Variant(
        name=name,
        kind="fake",
        runtime="fake",
        artifact=artifact,
        encoder="fake",
        accuracy=right / tested,
        accuracy_interval=wilson_interval(right, tested),
        latency=(timed,),
        cpu_seconds_per_1k=cost.latency_ms,
        usd_per_1k=cost.usd_per_1k,
    )


def _data(labels: tuple[str, ...], rows: int, seed: int) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(seed)
    texts = [f"{labels[i]}: story {n}" for n, i in enumerate(rng.integers(0, len(labels), rows))]
    return texts, np.array([true_label(text, labels) for text in texts], dtype=np.int64)


def _answers(logits: np.ndarray) -> VariantPredictions:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    confidence = shifted.max(axis=1) / shifted.sum(axis=1)
    return VariantPredictions(logits.argmax(axis=1).astype(np.int64), confidence, logits)
