"""Copies of exported graphs in lower precision: INT8 for processors and for TensorRT, FP16 for GPUs."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compress.datasets.data import DATA, Dataset, read_dataset
from compress.encoders import encoder_of, hand_on
from compress.graphs.calibration import Range, calibration_rows, feeds_of, ranges_of
from compress.graphs.export import GRAPH, export_onnx
from compress.graphs.lower import quantize_dynamic, quantize_fp16, quantize_static
from compress.graphs.mixed import Mixture, leave_worst_out
from compress.graphs.qat import products_in
from compress.graphs.qdq import products_of
from compress.graphs.smooth import smooth
from compress.graphs.structure import require_structure
from compress.graphs.verify import require_faithful, verification_texts, verify_graph
from compress.networks.models import Network, load_network
from compress.networks.network import Classifier
from compress.recipes.parts import QuantizePart
from compress.steps import Context, Result
from contract.errors import RecipeError
from contract.family import Batching, Precision
from runtime.api import Encoded, Encoder
from runtime.onnx_model import OnnxRuntime

PRECISIONS: dict[str, Precision] = {
    "dynamic": "int8-dynamic",
    "static": "int8-static",
    "qdq": "int8-qdq",
    "fp16": "fp16",
}


def quantize_step(context: Context) -> Result:
    """Write a copy of the parent's graph in lower precision and verify it against the network behind it.

    Raises:
        RecipeError: when the graph has nothing that the method quantizes.
        SluiceError: when the copy is not built as its precision promises.
    """
    part = QuantizePart.model_validate(context.step.config["variant"])
    graph, parent = context.inputs["graph"], context.inputs["parent"]
    data, encoder = read_dataset(context.inputs["data"].file(DATA)), encoder_of(graph)
    network = load_network(parent.folder)
    hand_on(graph, context.folder)
    precision = PRECISIONS[part.method]
    batching: Batching = "single" if part.method == "dynamic" or network.alone else "batched"
    target = context.folder / GRAPH
    train = data.of("train")
    calibration = train.take(calibration_rows(train, part.calibration, seed=context.recipe.seed))
    with tempfile.TemporaryDirectory(dir=context.folder) as scratch:
        context.update(0.05, "preparing the graph")
        source = _source(part, graph.file(GRAPH), network, encoder, calibration, Path(scratch))
        if part.method == "fp16":
            quantize_fp16(source, target)
            mixture = None
        else:
            encoded = encoder.encode(calibration.texts)
            job = _quantizer(part, source, network, encoded, parent.result, batching)
            context.update(0.3, "quantizing")
            mixture = _mixture(part, job, encoder, data, Path(scratch), seed=context.recipe.seed)
            job.write(target, () if mixture is None else mixture.left_out)
        left_out = () if mixture is None else mixture.left_out
        require_structure(target, precision, float_products=len(left_out))
        named = _names(network, source)
    context.update(0.8, "verifying")
    checked = encoder.encode(verification_texts(data, seed=context.recipe.seed))
    verification = verify_graph(
        target, network, checked, precision=precision, batching=batching, name=part.name
    )
    require_faithful(verification, precision, context.step.name, batching=batching)
    result = {
        **graph.result,
        "precision": precision,
        "batching": batching,
        "verification": verification.model_dump(mode="json"),
    }
    if part.method in {"static", "qdq"} or part.smooth is not None:
        result["calibration"] = {"n": len(calibration), "sha256": calibration.sha256}
    if mixture is not None:
        result["mixed"] = {
            "float": [named.get(name, name) for name in mixture.left_out],
            "accuracy_drop": mixture.drop,
            "sensitivity": {named.get(name, name): error for name, error in mixture.sensitivity.items()},
        }
    return result


def _source(
    part: QuantizePart,
    exported: Path,
    network: Network,
    encoder: Encoder,
    calibration: Dataset,
    scratch: Path,
) -> Path:
    """Return the FP32 graph to start from: the exported one, or one of a smoothed or unfused network."""
    portable = part.method in {"qdq", "fp16"}
    if part.smooth is None and not portable:
        return exported
    if part.smooth is not None:
        if not isinstance(network, Classifier):
            raise RecipeError(f"variant {part.name!r}: `smooth` needs a transformer as parent")
        if part.method == "fp16":
            raise RecipeError(f"variant {part.name!r}: `smooth` is for INT8")
        network = smooth(network, network.examples(encoder.encode(calibration.texts)), part.smooth)
    export_onnx(network, scratch / "source.onnx", fused=not portable)
    return scratch / "source.onnx"


@dataclass(frozen=True)
class _Quantizer:
    """Writes INT8 copies of one graph; `ranges` are for fixed scales, `batching` is how copies are served."""

    part: QuantizePart
    source: Path
    ranges: Mapping[str, Range]
    batching: Batching

    def write(self, target: Path, left_out: Collection[str]) -> None:
        """Write a copy in which some nodes stay FP32."""
        if self.part.method == "dynamic":
            quantize_dynamic(self.source, target, left_out=left_out)
        else:
            signed = self.part.method == "qdq"
            quantize_static(self.source, target, self.ranges, signed=signed, left_out=left_out)


def _quantizer(
    part: QuantizePart,
    source: Path,
    network: Network,
    encoded: Encoded,
    parent: Mapping[str, Any],
    batching: Batching,
) -> _Quantizer:
    """Return what writes copies, with ranges as the parent learnt them or found over calibration texts."""
    if part.method == "dynamic":
        return _Quantizer(part, source, {}, batching)
    names = [node.input[0] for node in products_of(onnx.load(source))]
    learnt = parent.get("ranges")
    if learnt is not None and len(learnt) == len(names):
        ranges = {name: (low, high) for name, (low, high) in zip(names, learnt, strict=True)}
    else:
        ranges = ranges_of(source, list(dict.fromkeys(names)), list(feeds_of(network, encoded)))
    return _Quantizer(part, source, ranges, batching)


def _mixture(
    part: QuantizePart, job: _Quantizer, encoder: Encoder, data: Dataset, scratch: Path, *, seed: int
) -> Mixture | None:
    if part.mixed is None:
        return None
    validation = data.of("validation")
    encoded = encoder.encode(validation.texts)

    def run(path: Path, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        runtime = OnnxRuntime(path, encoder=encoded.encoder, threads=1, batching=job.batching)
        try:
            return runtime.logits(encoded.take(rows.tolist()))
        finally:
            runtime.close()

    def answers(left_out: frozenset[str], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        job.write(scratch / "mixed.onnx", left_out)
        return run(scratch / "mixed.onnx", rows)

    wanted = run(job.source, np.arange(len(validation)))
    products = [node.name for node in products_of(onnx.load(job.source))]
    return leave_worst_out(answers, products, wanted, validation.targets, part.mixed, seed=seed)


def _names(network: Network, source: Path) -> dict[str, str]:
    """Return the module behind every product of a graph, where their numbers agree."""
    products, modules = products_of(onnx.load(source)), products_in(network)
    if len(products) != len(modules):
        return {}
    return {node.name: name for node, name in zip(products, modules, strict=True)}
