"""From a torch network to an ONNX graph of any batch and length, checked before anybody sees it."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from compress.data import DATA, read_dataset
from compress.network import Classifier, flops_of, load_network
from compress.steps import Context, Result
from compress.verify import TEXTS, require_faithful, verify_graph
from compress.weights import TOKENIZER
from contract.errors import EnvironmentProblem, SluiceError
from contract.files import atomic_path, write_bytes
from runtime.wordpiece import ATTENTION_MASK, INPUT_IDS, WordPieceEncoder

GRAPH = "model.onnx"

OPSET = 18
SHAPES = ((1, 1), (1, 7), (4, 33), (2, 64))
SHAPE_ERROR_LIMIT = 1e-3


def export_step(context: Context) -> Result:
    """Export the parent's network, verify it on validation texts, and put the tokenizer beside it."""
    parent = context.inputs["parent"]
    network = load_network(parent.folder)
    tokenizer = parent.file(TOKENIZER).read_bytes()
    write_bytes(context.folder / TOKENIZER, tokenizer)
    context.update(0.1, "tracing")
    export_onnx(network, context.folder / GRAPH)
    context.update(0.8, "verifying")
    max_length = int(parent.result["max_length"])
    texts = read_dataset(context.inputs["data"].file(DATA)).of("validation").texts[:TEXTS]
    encoded = WordPieceEncoder(tokenizer, max_length=max_length).encode(texts)
    verification = verify_graph(
        context.folder / GRAPH, network, encoded, precision="fp32", batching="batched"
    )
    require_faithful(verification, "fp32", context.step.name)
    return {
        "artifact": GRAPH,
        "runtime": "onnx",
        "precision": "fp32",
        "batching": "batched",
        "max_length": max_length,
        "parameters": parent.result["parameters"],
        "flops_per_text": flops_of(network.shape, float(encoded.lengths.mean())),
        "verification": verification.model_dump(mode="json"),
    }


def export_onnx(network: Classifier, path: Path) -> None:
    """Write the network as ONNX: int64 `input_ids`, `attention_mask` [batch, length] in, `logits` out.

    The example has two texts, one with padding: a batch of one would freeze that axis.

    Raises:
        SluiceError: when the graph's answers differ from the network's at one of SHAPES.
    """
    network.eval()
    length = min(16, network.shape.positions - network.shape.position_offset)
    ids = torch.randint(1, network.shape.vocabulary, (2, length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, length // 2 :] = 0
    batch = torch.export.Dim("batch", min=1)
    tokens = torch.export.Dim("length", min=1, max=network.shape.positions - network.shape.position_offset)
    axes = {0: batch, 1: tokens}
    with atomic_path(path) as temporary, _quiet(), torch.inference_mode():
        torch.onnx.export(
            network,
            (ids, mask),
            str(temporary),
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            input_names=[INPUT_IDS, ATTENTION_MASK],
            output_names=["logits"],
            dynamic_shapes={"input_ids": axes, "attention_mask": axes},
            verbose=False,
        )
        check_shapes(network, temporary)


def check_shapes(network: Classifier, path: Path) -> float:
    """Return the largest logit difference between graph and network over SHAPES.

    Raises:
        SluiceError: when it passes SHAPE_ERROR_LIMIT, or a shape does not run.
        EnvironmentProblem: without ONNX Runtime.
    """
    try:
        import onnxruntime
    except ImportError as problem:
        raise EnvironmentProblem(
            f"ONNX Runtime does not load: {problem}", hint="pip install 'sluicegate[cpu]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    limit = network.shape.positions - network.shape.position_offset
    worst = 0.0
    for batch, length in ((b, min(t, limit)) for b, t in SHAPES):
        ids = rng.integers(1, network.shape.vocabulary, (batch, length))
        mask = (np.arange(length) < rng.integers(1, length + 1, (batch, 1))).astype(np.int64)
        with torch.inference_mode():
            wanted = network(torch.from_numpy(ids), torch.from_numpy(mask)).float().numpy()
        try:
            found = session.run(None, {INPUT_IDS: ids, ATTENTION_MASK: mask})[0]
        except Exception as problem:
            raise SluiceError(f"the exported graph fails at shape {batch}x{length}: {problem}") from problem
        worst = max(worst, float(np.abs(found - wanted).max()))
    if worst > SHAPE_ERROR_LIMIT:
        raise SluiceError(f"the exported graph differs from the network by {worst:.2g} in its logits")
    return worst


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in ("torch.onnx", "onnxscript", "onnx_ir")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
