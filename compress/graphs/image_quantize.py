"""INT8 copies of exported image classifiers: calibrated, INT8 from the first convolution on."""

from __future__ import annotations

from pathlib import Path

import onnx

from compress.datasets.data import DATA, read_dataset
from compress.encoders import encoder_of, hand_on
from compress.graphs.calibration import calibration_rows
from compress.graphs.export import GRAPH
from compress.graphs.qdq_conv import insert_conv_pairs, quantized_tensors, spreads_of
from compress.graphs.structure import require_structure
from compress.graphs.verify import require_faithful, verification_texts, verify_graph
from compress.networks.models import load_network
from compress.recipes.parts import QuantizePart
from compress.steps import Context, Result
from contract.errors import RecipeError
from contract.family import Precision
from contract.files import atomic_path
from runtime.api import Encoded
from runtime.pixels import PIXELS

PRECISIONS: dict[str, Precision] = {"static": "int8-static", "qdq": "int8-qdq"}


def quantize_image_step(context: Context) -> Result:
    """Write an INT8 copy of the parent's graph and verify it against the network behind that graph.

    Raises:
        RecipeError: for methods that are for texts: convolutions have no fast dynamic form.
        SluiceError: when the copy is not built as its precision promises.
    """
    part = QuantizePart.model_validate(context.step.config["variant"])
    if part.method not in PRECISIONS or part.smooth is not None or part.mixed is not None:
        raise RecipeError(
            f"variant {part.name!r}: image classifiers are quantized with `method` static or qdq, "
            "without `smooth` and `mixed`"
        )
    precision, target = PRECISIONS[part.method], context.folder / GRAPH
    graph, network = context.inputs["graph"], load_network(context.inputs["parent"].folder)
    hand_on(graph, context.folder)
    data, encoder = read_dataset(context.inputs["data"].file(DATA)), encoder_of(graph)
    train = data.of("train")
    some = train.take(calibration_rows(train, part.calibration, seed=context.recipe.seed))
    context.update(0.1, f"calibrating on {len(some)} images")
    quantize_convolutions(graph.file(GRAPH), target, encoder.encode(some.texts), signed=part.method == "qdq")
    require_structure(target, precision)
    context.update(0.7, "verifying")
    encoded = encoder.encode(verification_texts(data, seed=context.recipe.seed))
    verification = verify_graph(
        target, network, encoded, precision=precision, batching="batched", name=part.name
    )
    require_faithful(verification, precision, context.step.name)
    return {
        **graph.result,
        "precision": precision,
        "batching": "batched",
        "calibration": {"n": len(some), "sha256": some.sha256},
        "verification": verification.model_dump(mode="json"),
    }


def quantize_convolutions(source: Path, target: Path, images: Encoded, *, signed: bool) -> None:
    """Write an INT8 copy of a graph from `pixels` to logits.

    Args:
        source: FP32 graph.
        target: of the copy.
        images: that the scales are calibrated on.
        signed: S8S8, symmetric, for TensorRT; else U8S8, for processors.

    Raises:
        RecipeError: when there is nothing to quantize.
    """
    model = onnx.load(source)
    pixels = images.arrays[PIXELS]
    feeds = ({PIXELS: pixels[row : row + 1]} for row in range(len(images)))
    if not insert_conv_pairs(model, spreads_of(source, quantized_tensors(model), feeds), signed=signed):
        raise RecipeError("the graph has no convolution or matrix product with constant weights to quantize")
    with atomic_path(target) as temporary:
        onnx.save(model, temporary)
