"""How often an answer changes with its batchmates, by how much, and what running texts singly costs.

    python bench/batchmates.py FAMILY [--variants A,B] [--split test] [--sentences 3] [--rounds 5]

With --sentences, texts are the first sentences of each article, one by one: lengths then vary as those of
short requests do, where whole articles would all be cut at the same length.

Each text is answered alone, alone with padding, and in padded random batches of several sizes, on the
graphs of a family as they are, without the regime that serving would use. Throughput is that of one
session on one thread, texts of the split in random order, encoding left out.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
from numpy.typing import NDArray

from contract.family import Family, Variant, read_family
from contract.files import inside, write_json
from contract.formulas import wilson_interval
from runtime.api import Encoded
from runtime.encoders import load_encoder
from runtime.machine import describe_machine

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """One variant in one arrangement, against the same texts alone and unpadded."""

    variant: str
    precision: str
    arrangement: str
    answers: int
    changed: int
    changed_interval: tuple[float, float]
    decisions_changed: float
    accuracy: float
    movement_mean: float
    movement_p99: float
    movement_max: float
    texts_per_s: float


class Graph:
    """An ONNX graph run exactly as asked: no sorting, no trimming, no single runs."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.qdqisint8allowed", "1")
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs = [item.name for item in self._session.get_inputs()]

    def run(self, encoded: Encoded, rows: NDArray[np.int64], length: int) -> Floats:
        """Return logits of some texts, padded or cut to a length."""
        feeds = {
            name: np.ascontiguousarray(encoded.arrays[name][rows, :length])
            if name in encoded.arrays
            else np.zeros((len(rows), length), dtype=np.int64)
            for name in self._inputs
        }
        found: Floats = self._session.run(None, feeds)[0]
        return found


def batches_of(order: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Return the order cut into groups."""
    return [order[start : start + size] for start in range(0, len(order), size)]


def confidence_of(logits: Floats) -> NDArray[np.float64]:
    """Return the largest softmax probability of each row."""
    scaled = logits.astype(np.float64)
    found: NDArray[np.float64] = 1 / np.exp(scaled - scaled.max(axis=1, keepdims=True)).sum(axis=1)
    return found


def compare(
    variant: Variant, graph: Graph, encoded: Encoded, truth: NDArray[np.int64], sizes: list[int], rounds: int
) -> list[Row]:
    """Return a row per arrangement of one variant."""
    n, rng = len(encoded), np.random.default_rng(0)
    lengths, longest = encoded.lengths, int(encoded.lengths.max())
    graph.run(encoded, np.arange(min(8, n)), longest)

    def timed(groups: list[NDArray[np.int64]], padded: bool) -> tuple[Floats, float]:
        out = np.empty((n, len_classes), dtype=np.float32)
        start = time.perf_counter()
        for rows in groups:
            out[rows] = graph.run(encoded, rows, longest if padded else int(lengths[rows].max()))
        return out, n / (time.perf_counter() - start)

    len_classes = graph.run(encoded, np.arange(1), int(lengths[0])).shape[1]
    singles = batches_of(np.arange(n), 1)
    alone, alone_rate = timed(singles, padded=False)
    answer, confidence = alone.argmax(axis=1), confidence_of(alone)
    # The least sure fifth would escalate: a text that changes sides changes what the gateway does.
    threshold = np.quantile(confidence, 0.2)

    def row(name: str, results: list[tuple[Floats, float]]) -> Row:
        moved = np.concatenate([np.abs(found - alone).max(axis=1) for found, _ in results])
        changed = sum(int((found.argmax(axis=1) != answer).sum()) for found, _ in results)
        sides = [((confidence_of(f) >= threshold) != (confidence >= threshold)).mean() for f, _ in results]
        return Row(
            variant=variant.name,
            precision=variant.precision,
            arrangement=name,
            answers=n * len(results),
            changed=changed,
            changed_interval=wilson_interval(changed, n * len(results)),
            decisions_changed=float(np.mean(sides)),
            accuracy=float(np.mean([(found.argmax(axis=1) == truth).mean() for found, _ in results])),
            movement_mean=float(moved.mean()),
            movement_p99=float(np.quantile(moved, 0.99)),
            movement_max=float(moved.max()),
            texts_per_s=float(np.median([rate for _, rate in results])),
        )

    rows = [row("alone", [(alone, alone_rate)]), row("alone, padded", [timed(singles, padded=True)])]
    for size in sizes:
        rows.append(
            row(
                f"random batches of {size}",
                [timed(batches_of(rng.permutation(n), size), padded=False) for _ in range(rounds)],
            )
        )
    by_length = np.argsort(lengths, kind="stable")
    rows.append(
        row(f"batches of {sizes[0]} by length", [timed(batches_of(by_length, sizes[0]), padded=False)])
    )
    return rows


def markdown(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| variant | arrangement | answers changed (95% interval) | sides changed | accuracy "
        "| logit movement mean / p99 / max | texts/s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        low, high = r.changed_interval
        lines.append(
            f"| {r.variant} ({r.precision}) | {r.arrangement} "
            f"| {r.changed} of {r.answers}: {r.changed / r.answers:.2%} ({low:.2%} to {high:.2%}) "
            f"| {r.decisions_changed:.2%} | {r.accuracy:.2%} "
            f"| {r.movement_mean:.4f} / {r.movement_p99:.3f} / {r.movement_max:.3f} | {r.texts_per_s:.0f} |"
        )
    return "\n".join(lines)


def held_out(
    folder: Path, family: Family, splits: list[str], sentences: int
) -> tuple[list[str], NDArray[np.int64]]:
    """Return texts and class indices of some splits of the family's data, whole or sentence by sentence."""
    if family.data is None:
        raise SystemExit(f"{folder}: the family carries no data")
    table = pq.read_table(inside(folder, family.data.path))
    keep = np.isin(np.array(table["split"].to_pylist()), splits)
    index = {name: i for i, name in enumerate(family.labels)}
    whole = np.array(table["text"].to_pylist(), dtype=object)[keep]
    labels = np.array(table["label"].to_pylist(), dtype=object)[keep]
    texts, truth = [], []
    for text, label in zip(whole, labels, strict=True):
        parts = re.split(r"(?<=[.!?])\s+|\n+", text.strip())[:sentences] if sentences else [text]
        texts += parts
        truth += [index[label]] * len(parts)
    return texts, np.array(truth, dtype=np.int64)


def main() -> None:
    """Print the table, and write the figures where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("family", type=Path)
    parser.add_argument("--variants", default="", help="default: every ONNX variant")
    parser.add_argument("--split", default="test", help="one or several, with commas")
    parser.add_argument(
        "--sentences", type=int, default=0, help="sentences of each text, each a text; 0: whole"
    )
    parser.add_argument("--sizes", default="8,16,32")
    parser.add_argument("--rounds", type=int, default=5, help="random divisions into batches per size")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    family = read_family(given.family)
    texts, truth = held_out(given.family, family, given.split.split(","), given.sentences)
    wanted = given.variants.split(",") if given.variants else family.names
    rows: list[Row] = []
    for variant in family.variants:
        if variant.name not in wanted or variant.runtime != "onnx":
            continue
        encoded = load_encoder(given.family, family.encoders[variant.encoder]).encode(texts)
        graph = Graph(inside(given.family, variant.artifact.path))
        sizes = [int(size) for size in given.sizes.split(",")]
        rows += compare(variant, graph, encoded, truth, sizes, given.rounds)
    print(f"{len(texts)} texts, {encoded.lengths.mean():.1f} tokens on average\n")
    print(markdown(rows))
    if given.json:
        machine = describe_machine().model_dump(mode="json")
        write_json(given.json, {"rows": [asdict(r) for r in rows], "n": len(texts), "machine": machine})
        print(json.dumps({"written": str(given.json)}))


if __name__ == "__main__":
    main()
