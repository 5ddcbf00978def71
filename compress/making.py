"""The steps that need no torch of their own: data, the linear stage, calibration and measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data import DATA, Dataset, load_data, read_dataset, write_dataset
from compress.linear import LinearSettings, train_linear
from compress.measure import measure_variant
from compress.parts import LinearPart
from compress.peak_memory import measure_peak_memory
from compress.predict import confidences, predict_logits
from compress.recipe import EXTRA, Target
from compress.steps import Context, Result
from compress.weights import TOKENIZER
from contract.family import EncoderSpec, Family, Variant, artifact_of
from router.calibrate import expected_calibration_error, fit_temperature
from runtime.api import LoadedVariant, Logits
from runtime.linear import LinearModel, LinearRuntime, write_linear
from runtime.load import load_variant
from runtime.machine import usable_cores
from runtime.ngrams import NgramEncoder, NgramOptions, ngram_options, ngram_spec
from runtime.wordpiece import wordpiece_spec

LINEAR = "model.npz"
LOGITS = "logits.npy"
HELD_OUT = ("validation", "tune", "certify", "test")
MEMORY_TEXTS = 20
SOFT_WEIGHTS = (0.0, 0.5, 0.9)


def prepare_data(context: Context) -> Result:
    """Read, check and divide the data. Raises DataError, EnvironmentProblem."""
    data = load_data(context.recipe.data, seed=context.recipe.seed)
    write_dataset(context.folder / DATA, data)
    return {
        "labels": list(data.labels),
        "removed_duplicates": data.removed,
        "removed_after_cut": data.removed_after_cut,
        "splits": {name: record.n for name, record in data.records().items()},
        "sha256": data.sha256,
    }


def train_linear_step(context: Context) -> Result:
    """Train the linear stage on labels and, where validation says that it helps, on its parent's answers."""
    part = LinearPart.model_validate(context.step.config["variant"])
    data = read_dataset(context.inputs["data"].file(DATA))
    train = data.of("train", *([EXTRA] if part.extra else []))
    validation = data.of("validation")
    options = NgramOptions(
        word_orders=part.word_orders,
        shortest=part.shortest,
        longest=part.longest,
        bits=part.bits,
        max_characters=part.max_characters,
    )
    teacher = _teacher_answers(context, train) if "parent" in context.inputs else None
    best: tuple[float, float, float, LinearModel] | None = None
    weights = SOFT_WEIGHTS if teacher is not None else SOFT_WEIGHTS[:1]
    for number, soft_weight in enumerate(weights):
        context.update(number / len(weights), f"soft weight {soft_weight:g}")
        model = train_linear(
            train.texts,
            train.targets,
            len(data.labels),
            options=options,
            settings=LinearSettings(soft_weight=soft_weight),
            seed=context.recipe.seed,
            teacher_logits=teacher if soft_weight else None,
        )
        logits = LinearRuntime(model).logits(NgramEncoder(options).encode(validation.texts))
        accuracy = float((logits.argmax(1) == validation.targets).mean())
        loss = _log_loss(logits, validation.targets)
        if best is None or (accuracy, -loss) > best[:2]:
            best = (accuracy, -loss, soft_weight, model)
    assert best is not None
    write_linear(context.folder / LINEAR, best[3])
    return {
        "artifact": LINEAR,
        "runtime": "linear",
        "precision": "fp32",
        "batching": "batched",
        "parameters": best[3].parameters,
        "soft_weight": best[2],
        "encoder": ngram_spec(options).model_dump(mode="json"),
    }


def _teacher_answers(context: Context, train: Dataset) -> NDArray[np.float32]:
    from compress.network import load_network
    from compress.training import Tokens, predict
    from runtime.wordpiece import read_wordpiece

    parent = context.inputs["parent"]
    encoder = read_wordpiece(parent.file(TOKENIZER), max_length=int(parent.result["max_length"]))
    return predict(load_network(parent.folder), Tokens.of(encoder.encode(train.texts)), precision="auto")


def _log_loss(logits: Logits, targets: NDArray[np.int64]) -> float:
    temperature = fit_temperature(logits, targets)
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(1, keepdims=True)
    return float((np.log(np.exp(scaled).sum(1)) - scaled[np.arange(len(targets)), targets]).mean())


def measure_step(context: Context) -> Result:
    """Calibrate a variant on validation, answer the held-out texts, and measure what an answer costs here."""
    target = Target.model_validate(context.step.config["target"])
    data = read_dataset(context.inputs["data"].file(DATA))
    folder = context.inputs["artifact"].folder
    family = provisional_family(folder, context.inputs["artifact"].result, data.labels)
    name = family.teacher
    loaded = load_variant(folder, family, name, provider=target.provider, threads=target.threads)
    held = data.of(*HELD_OUT)
    context.update(0.0, f"answering {len(held)} held-out texts")
    logits = _logits_side_by_side(loaded, held.texts, target.threads)
    np.save(context.folder / LOGITS, logits)
    validation = held.rows("validation")
    targets = held.targets[validation]
    temperature = fit_temperature(logits[validation], targets)
    right = logits[validation].argmax(1) == targets
    context.update(0.5, "timing")
    real = data.of(target.lengths).texts
    measured = measure_variant(
        loaded,
        real,
        threads=target.threads,
        provider=target.provider,
        calls=target.calls,
        budget_s=target.seconds,
        seed=context.recipe.seed,
        meter=context.meter(),
    )
    context.update(0.9, "peak memory")
    memory = measure_peak_memory(
        folder, family, name, real[:MEMORY_TEXTS], threads=target.threads, provider=target.provider
    )
    loaded.runtime.close()
    return {
        "temperature": temperature,
        "ece_before": expected_calibration_error(confidences(logits[validation], 1.0), right),
        "ece_after": expected_calibration_error(confidences(logits[validation], temperature), right),
        "latency": [item.model_dump(mode="json") for item in measured.latency],
        "cpu_seconds_per_1k": measured.cpu_seconds_per_1k,
        "usd_per_1k": measured.usd_per_1k,
        "energy_wh_per_1k": measured.energy_wh_per_1k,
        "energy_provenance": measured.energy_provenance,
        "peak_memory_bytes": memory,
    }


def encoder_spec(folder: Path, result: Mapping[str, Any]) -> EncoderSpec:
    """Return the manifest record of the encoder of a step that made an artifact."""
    if result["runtime"] == "linear":
        return ngram_spec(ngram_options(EncoderSpec.model_validate(result["encoder"])))
    return wordpiece_spec(artifact_of(folder, folder / TOKENIZER), int(result["max_length"]))


def provisional_family(folder: Path, result: Mapping[str, Any], labels: Sequence[str]) -> Family:
    """Return a family of the one artifact in a step's folder, so that the serving loader can load it."""
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
        encoders={"encoder": encoder_spec(folder, result)},
        variants=(variant,),
    )


def _logits_side_by_side(loaded: LoadedVariant, texts: Sequence[str], threads: int) -> Logits:
    """Answer the texts on all cores: several calls at a time, each as a server would make it."""
    workers = max(1, int(usable_cores()) // threads)
    chunk = max(1, min(64, -(-len(texts) // workers)))
    parts = [texts[start : start + chunk] for start in range(0, len(texts), chunk)]
    with ThreadPoolExecutor(workers) as pool:
        return np.concatenate(list(pool.map(lambda part: predict_logits(loaded, part), parts)))
