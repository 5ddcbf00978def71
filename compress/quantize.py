"""INT8 copies of exported graphs."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from compress.data import DATA, read_dataset
from compress.encoders import encoder_of, hand_on
from compress.export import GRAPH
from compress.models import load_network
from compress.steps import Context, Result
from compress.verify import TEXTS, require_faithful, verify_graph
from contract.files import atomic_path


def quantize_step(context: Context) -> Result:
    """Write an INT8 copy of the parent's graph and verify it against the network behind that graph."""
    graph, network = context.inputs["graph"], load_network(context.inputs["parent"].folder)
    hand_on(graph, context.folder)
    context.update(0.1, "quantizing")
    quantize_dynamic(graph.file(GRAPH), context.folder / GRAPH)
    context.update(0.5, "verifying")
    texts = read_dataset(context.inputs["data"].file(DATA)).of("validation").texts[:TEXTS]
    encoded = encoder_of(graph).encode(texts)
    verification = verify_graph(
        context.folder / GRAPH, network, encoded, precision="int8-dynamic", batching="single"
    )
    require_faithful(verification, "int8-dynamic", context.step.name)
    return {
        **graph.result,
        "precision": "int8-dynamic",
        "batching": "single",
        "verification": verification.model_dump(mode="json"),
    }


def quantize_dynamic(source: Path, target: Path) -> None:
    """Write a dynamic INT8 copy: weights per channel, MatMul only; activations are scaled at run time.

    The scale is one per batch, so such a graph is served one text at a time (`batching: single`).
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as quantize

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch, atomic_path(target) as temporary:
            made = Path(scratch) / "model.onnx"
            quantize(
                source,
                made,
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                weight_type=QuantType.QInt8,
                extra_options={"MatMulConstBOnly": True},
            )
            made.replace(temporary)
    finally:
        root.setLevel(level)
