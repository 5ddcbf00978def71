"""`python -m bench.gateway.padding`: what padding costs, by how texts of mixed lengths are put together.

Lengths are drawn evenly up to a cap. Padded to the longest of a batch of 16; in the groups of like length
that the runtime makes of each batch; in the same groups if the queue were sorted by length first.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from runtime.onnx_model import groups_of_like_length

BATCH = 16
LEAST = 8
TEXTS = 20_000
CPU_TOKENS = 256
Lengths = NDArray[np.int64]


def padding(batches: Iterable[Lengths]) -> float:
    """Return padded tokens by real ones."""
    real = padded = 0
    for batch in batches:
        real += int(batch.sum())
        for rows in groups_of_like_length(batch, CPU_TOKENS):
            padded += len(rows) * int(batch[rows].max())
    return padded / real - 1


def sorted_first(lengths: Lengths, depth: int) -> list[Lengths]:
    """Return the batches of a queue of that depth, sorted by length."""
    queues = [np.sort(lengths[i : i + depth]) for i in range(0, len(lengths), depth)]
    return [queue[i : i + BATCH] for queue in queues for i in range(0, len(queue), BATCH)]


def main() -> None:
    """Print the table."""
    print("| cap | to the longest | groups in a batch | queue of 32 sorted first | of 64 |")
    print("| --- | --- | --- | --- | --- |")
    for cap in (32, 128, 256):
        lengths = np.random.default_rng(0).integers(LEAST, cap + 1, TEXTS)
        batches = [lengths[i : i + BATCH] for i in range(0, TEXTS, BATCH)]
        longest = sum(len(b) * int(b.max()) for b in batches) / int(lengths.sum()) - 1
        shares = [longest, padding(batches), *(padding(sorted_first(lengths, depth)) for depth in (32, 64))]
        print(f"| {cap} | " + " | ".join(f"{100 * share:.1f}%" for share in shares) + " |")


if __name__ == "__main__":
    main()
