"""The last step of every variant: its answers to held-out texts, calibrated, and what they cost here."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from compress.datasets.data import DATA, read_dataset
from compress.encoders import encoder_spec
from compress.measurement.measure import TimingPlan, measure_variant
from compress.measurement.peak_memory import measure_peak_memory
from compress.measurement.predict import predict_logits
from compress.recipes.recipe import Target
from compress.steps import Context, Result
from compress.store import Finished
from contract.family import Family, Variant, artifact_of
from router.tune.calibrate import fit_temperature
from runtime.api import LoadedVariant, Logits
from runtime.load import load_variant
from runtime.machine import core_count

LOGITS = "logits.npy"
HELD_OUT = ("validation", "tune", "certify", "test")


def measure_step(context: Context) -> Result:
    """Calibrate a variant on validation, answer the held-out texts, and measure what an answer costs here."""
    target = Target.model_validate(context.step.config["target"])
    data = read_dataset(context.inputs["data"].file(DATA))
    folder = context.inputs["artifact"].folder
    family = provisional_family(context.inputs["artifact"], data.labels)
    name = family.teacher
    loaded = load_made(context.inputs["artifact"], data.labels, target)
    held = data.of(*HELD_OUT)
    context.update(0.0, f"answering {len(held)} held-out texts")
    logits = _logits_side_by_side(loaded, held.texts, target.threads)
    np.save(context.folder / LOGITS, logits)
    validation = held.rows("validation")
    targets = held.targets[validation]
    temperature = fit_temperature(logits[validation], targets)
    context.update(0.5, "timing")
    real = data.of(target.lengths).texts
    measured = measure_variant(
        loaded,
        real,
        TimingPlan(calls=target.calls, budget_s=target.seconds, seed=context.recipe.seed),
        threads=target.threads,
        provider=target.provider,
        meter=context.meter(),
    )
    context.update(0.9, "peak memory")
    memory = measure_peak_memory(folder, family, name, real, threads=target.threads, provider=target.provider)
    loaded.runtime.close()
    return {
        "temperature": temperature,
        "latency": [item.model_dump(mode="json") for item in measured.latency],
        "cpu_seconds_per_1k": measured.cpu_seconds_per_1k,
        "usd_per_1k": measured.usd_per_1k,
        "energy_wh_per_1k": measured.energy_wh_per_1k,
        "energy_provenance": measured.energy_provenance,
        "peak_memory_bytes": memory,
    }


def load_made(finished: Finished, labels: Sequence[str], target: Target) -> LoadedVariant:
    """Return the artifact in a step's folder, loaded as it is to be served."""
    family = provisional_family(finished, labels)
    return load_variant(
        finished.folder, family, family.teacher, provider=target.provider, threads=target.threads
    )


def provisional_family(finished: Finished, labels: Sequence[str]) -> Family:
    """Return a family of the one artifact in a step's folder, so that the serving loader can load it."""
    folder, result = finished.folder, finished.result
    variant = Variant(
        name="measured",
        kind="teacher",
        runtime=result["runtime"],
        precision=result["precision"],
        batching=result["batching"],
        artifact=artifact_of(folder, folder / str(result["artifact"])),
        encoder="encoder",
    )
    return Family(
        name="measured",
        labels=tuple(labels),
        teacher=variant.name,
        encoders={"encoder": encoder_spec(finished)},
        variants=(variant,),
    )


def _logits_side_by_side(loaded: LoadedVariant, texts: Sequence[str], threads: int) -> Logits:
    """Answer the texts on all cores: several calls at a time, each as a server would make it."""
    workers = max(1, core_count() // threads)
    chunk = max(1, min(64, -(-len(texts) // workers)))
    parts = [texts[start : start + chunk] for start in range(0, len(texts), chunk)]
    with ThreadPoolExecutor(workers) as pool:
        return np.concatenate(list(pool.map(lambda part: predict_logits(loaded, part), parts)))
