"""What most people write: FastAPI, a tokenizer and one ONNX Runtime session in one process.

python bench/serving/plain_fastapi.py FAMILY VARIANT PORT
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from tokenizers import Tokenizer

from contract.family import read_family


class Body(BaseModel):
    """A text or several."""

    inputs: str | list[str]


class Output(BaseModel):
    """One answer."""

    label: str
    confidence: float


class Answers(BaseModel):
    """One answer per text."""

    outputs: list[Output]


def make(folder: Path, name: str) -> FastAPI:
    """Return the application for one ONNX variant of a family."""
    family = read_family(folder)
    variant = family.variant(name)
    encoder = family.encoders[variant.encoder]
    if encoder.artifact is None or encoder.max_length is None:
        raise SystemExit(f"{name} has no tokenizer: choose an ONNX variant")
    tokenizer = Tokenizer.from_file(str(folder / encoder.artifact.path))
    tokenizer.enable_truncation(encoder.max_length)
    tokenizer.enable_padding()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(folder / variant.artifact.path), options, providers=["CPUExecutionProvider"]
    )
    wanted = {item.name for item in session.get_inputs()}
    app = FastAPI()

    @app.post("/v1/classify")
    def classify(body: Body) -> Answers:
        texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
        encodings = tokenizer.encode_batch(texts)
        ids = np.array([e.ids for e in encodings], dtype=np.int64)
        mask = np.array([e.attention_mask for e in encodings], dtype=np.int64)
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        logits = session.run(None, {key: value for key, value in feeds.items() if key in wanted})[0]
        scaled = np.exp((logits - logits.max(axis=1, keepdims=True)) / variant.temperature)
        probabilities = scaled / scaled.sum(axis=1, keepdims=True)
        return Answers(
            outputs=[
                Output(label=family.labels[int(row.argmax())], confidence=float(row.max()))
                for row in probabilities
            ]
        )

    return app


if __name__ == "__main__":
    uvicorn.run(
        make(Path(sys.argv[1]), sys.argv[2]), port=int(sys.argv[3]), log_level="warning", access_log=False
    )
