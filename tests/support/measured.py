"""A measured family of linear variants: artifacts, held-out texts and the answers to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from contract.family import Family, Variant, artifact_of, read_family, write_family
from contract.machine import Machine
from contract.predictions import Predictions, VariantPredictions, write_predictions
from runtime.load import load_variant
from runtime.ngrams.encoder import NgramOptions, ngram_spec
from runtime.ngrams.linear import LinearModel, write_linear

OPTIONS = NgramOptions(bits=10)
TEXTS = tuple(f"{word} number {row}" for row in range(20) for word in ("good", "bad"))


def write_linear_model(path: Path, *, seed: int, shift: float = 0.0) -> None:
    """Write a linear model with random weights, all of one class shifted."""
    weights = np.random.default_rng(seed).normal(size=(1 << OPTIONS.bits, 2)).astype(np.float32)
    weights[:, 0] += shift
    model = LinearModel(
        buckets=np.arange(1 << OPTIONS.bits, dtype=np.uint32),
        weights=weights,
        idf=np.ones(1 << OPTIONS.bits, dtype=np.float32),
        bias=np.zeros(2, dtype=np.float32),
        encoder=OPTIONS.sha256,
        bits=OPTIONS.bits,
    )
    write_linear(path, model)


def write_measured_family(folder: Path, machine: Machine, seeds: Mapping[str, int]) -> Family:
    """Write a family with a variant per seed, whose predictions are its answers to TEXTS."""
    for name, seed in seeds.items():
        write_linear_model(folder / f"{name}.npz", seed=seed)
    pq.write_table(pa.table({"text": TEXTS}), folder / "data.parquet")
    family = _family(folder, machine, tuple(seeds))
    found = {}
    for name in seeds:
        logits = load_variant(folder, family, name).logits(TEXTS)
        sure = 1 / (1 + np.exp(-np.abs(logits[:, 0] - logits[:, 1]).astype(np.float64)))
        found[name] = VariantPredictions(logits.argmax(1).astype(np.int64), sure, logits)
    labels = np.arange(len(TEXTS), dtype=np.int64) % 2
    write_predictions(folder / "predictions.parquet", Predictions(("bad", "good"), labels, found))
    stored = {name: artifact_of(folder, folder / f"{name}.parquet") for name in ("data", "predictions")}
    write_family(folder, family.model_copy(update=stored))
    return read_family(folder)


def compute_otherwise(folder: Path, name: str, *, seed: int, shift: float) -> Family:
    """Let a variant give other answers than those stored, as another processor does."""
    write_linear_model(folder / f"{name}.npz", seed=seed, shift=shift)
    family = read_family(folder, verify=False)
    artifact = artifact_of(folder, folder / f"{name}.npz")
    variants = tuple(
        v.model_copy(update={"artifact": artifact}) if v.name == name else v for v in family.variants
    )
    write_family(folder, family.model_copy(update={"variants": variants}))
    return read_family(folder)


def _family(folder: Path, machine: Machine, names: tuple[str, ...]) -> Family:
    return Family(
        name="toy",
        labels=("bad", "good"),
        teacher=names[-1],
        encoders={"ngrams": ngram_spec(OPTIONS)},
        variants=tuple(
            Variant(
                name=name,
                kind="linear",
                runtime="linear",
                artifact=artifact_of(folder, folder / f"{name}.npz"),
                encoder="ngrams",
                usd_per_1k=0.1,
            )
            for name in names
        ),
        machine=machine,
    )
