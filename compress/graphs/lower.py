"""Writers of graphs in lower precision: dynamic, static and explicit INT8, and FP16."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import onnx
from onnx import NodeProto

from compress.graphs.biases import bias_products
from compress.graphs.calibration import Range
from compress.graphs.qdq import insert_dynamic, insert_pairs, products_of
from contract.errors import RecipeError
from contract.files import atomic_path


def quantize_dynamic(source: Path, target: Path, *, left_out: Collection[str] = ()) -> None:
    """Write a dynamic INT8 copy: weights per channel, activations scaled at run time.

    The scale is one per batch, so such a graph is served one text at a time (`batching: single`).

    Args:
        source: FP32 graph.
        target: of the copy.
        left_out: names of matrix products that stay FP32.

    Raises:
        RecipeError: when there are no matrix products to quantize.
    """
    _required(source)
    model = onnx.load(source)
    insert_dynamic(model, left_out=left_out)
    bias_products(model)
    with atomic_path(target) as temporary:
        onnx.save(model, temporary)


def quantize_static(
    source: Path,
    target: Path,
    ranges: Mapping[str, Range],
    *,
    signed: bool = False,
    left_out: Collection[str] = (),
) -> None:
    """Write a static INT8 copy: weights per channel, activations by ranges; outputs of products stay float.

    Args:
        source: FP32 graph.
        target: of the copy.
        ranges: of the first factor of every product, by tensor.
        signed: S8S8, for TensorRT; else U8S8, for processors.
        left_out: names of matrix products that stay FP32.

    Raises:
        RecipeError: when there are no matrix products to quantize.
    """
    _required(source)
    model = onnx.load(source)
    insert_pairs(model, ranges, signed=signed, left_out=left_out)
    with atomic_path(target) as temporary:
        onnx.save(model, temporary)


def quantize_fp16(source: Path, target: Path) -> None:
    """Write a copy whose constants and arithmetic are FP16; inputs and outputs keep their types."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with _only_errors():
        model = convert_float_to_float16(onnx.load(source), keep_io_types=True)
    with atomic_path(target) as temporary:
        onnx.save(model, temporary)


def _required(source: Path) -> Sequence[NodeProto]:
    products = products_of(onnx.load(source))
    if not products:
        raise RecipeError(
            f"{source.name} has no matrix product with constant weights: nothing to quantize",
        )
    return products


@contextlib.contextmanager
def _only_errors() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
