"""The step that measures a latency table: apart from the pruning, which is timed nowhere."""

from __future__ import annotations

from pathlib import Path

import onnx

from compress.datasets.data import DATA, read_dataset
from compress.encoders import encoder_of
from compress.graphs.export import export_onnx
from compress.graphs.lower import quantize_dynamic, quantize_static
from compress.graphs.qdq import products_of
from compress.learning.teacher import parent_classifier
from compress.networks.network import Classifier
from compress.pruning.latency_table import TABLE
from compress.pruning.timing import TablePlan, Write, measure_table
from compress.recipes.recipe import Target
from compress.steps import Context, Result
from contract.files import write_json


def table_step(context: Context) -> Result:
    """Measure what every width of the parent's halves costs on the target, and write the table.

    Raises:
        RecipeError: when the parent is not a transformer.
    """
    precision = str(context.step.config["precision"])
    target = Target.model_validate(context.step.config["target"])
    parent = parent_classifier(context)
    data = read_dataset(context.inputs["data"].file(DATA))
    encoder = encoder_of(context.inputs["parent"])
    table = measure_table(
        parent.shape,
        _writer(precision),
        precision,
        encoder,
        data.of(target.lengths).texts,
        TablePlan(threads=target.threads, provider=target.provider, seed=context.recipe.seed),
        context.update,
    )
    write_json(context.folder / TABLE, table.to_json())
    return {
        "precision": table.precision,
        "latency_ms": table.p50_ms(parent.shape.layers),
        "worst_relative_error": table.worst_relative_error,
    }


def _writer(precision: str) -> Write:
    """Return what makes the graph that is served of a network in a precision.

    Static INT8 gets one range for all activations: what a scale is does not change how long a product takes.
    """

    def write(network: Classifier, path: Path) -> None:
        if precision == "fp32":
            export_onnx(network, path)
            return
        exported = path.with_suffix(".fp32.onnx")
        export_onnx(network, exported)
        if precision == "int8-dynamic":
            quantize_dynamic(exported, path)
        else:
            products = products_of(onnx.load(exported))
            quantize_static(exported, path, {node.input[0]: (-1.0, 1.0) for node in products})

    return write
