"""The model that every peer serves, in the plainest fast form: a tokenizer and an ONNX Runtime session.

It runs in a peer's own environment, without this project's packages, and knows only the folder that
`bench.gateway.handed` writes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer


class Model:
    """Answers texts with labels and confidences.

    Args:
        folder: with model.json, which names the graph, the tokenizer, the labels and the temperature.
        threads: of the session.
        pad_to: tokens that every text is padded to; 0: the longest of its batch.
    """

    def __init__(self, folder: Path, threads: int = 1, pad_to: int = 0) -> None:
        told = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        self._labels: list[str] = told["labels"]
        self._temperature: float = told["temperature"]
        self._tokenizer = Tokenizer.from_file(told["tokenizer"])
        self._tokenizer.enable_truncation(told["max_length"])
        self._tokenizer.enable_padding(length=pad_to or None)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            told["graph"], options, providers=["CPUExecutionProvider"]
        )
        self._inputs = {item.name for item in self._session.get_inputs()}

    def classify(self, texts: list[str]) -> list[dict[str, Any]]:
        """Return {"label", "confidence"} of each text."""
        encodings = self._tokenizer.encode_batch_fast(texts)
        ids = np.array([encoding.ids for encoding in encodings], dtype=np.int64)
        feeds = {"input_ids": ids}
        if "attention_mask" in self._inputs:
            feeds["attention_mask"] = np.array([e.attention_mask for e in encodings], dtype=np.int64)
        if "token_type_ids" in self._inputs:
            feeds["token_type_ids"] = np.zeros_like(ids)
        logits = self._session.run(None, feeds)[0] / self._temperature
        scaled = np.exp(logits - logits.max(axis=1, keepdims=True))
        best = scaled.argmax(axis=1)
        surely = scaled.max(axis=1) / scaled.sum(axis=1)
        return [
            {"label": self._labels[label], "confidence": confidence}
            for label, confidence in zip(best.tolist(), surely.tolist(), strict=True)
        ]


def from_environment() -> Model:
    """Return the model that the environment of a server process names."""
    return Model(Path(os.environ["PEER_MODEL"]), setting("THREADS", 1), setting("PAD_TO", 0))


def setting(name: str, default: int) -> int:
    """Return a whole number that the run chose for this server."""
    return int(os.environ.get(f"PEER_{name}", str(default)))
