"""Writers of graphs in lower precision: dynamic, static and explicit INT8, and FP16."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import NodeProto

from compress.calibration import Feeds, Range
from compress.qdq import insert_dynamic, insert_pairs, products_of
from contract.errors import RecipeError
from contract.files import atomic_path

CONVOLUTION = "Conv"


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


def has_convolutions(source: Path) -> bool:
    """Return whether a graph has convolutions, which need outputs in INT8 too to be fast."""
    return any(node.op_type == CONVOLUTION for node in onnx.load(source, load_external_data=False).graph.node)


def quantize_convolutions(
    source: Path,
    target: Path,
    feeds: Sequence[Feeds],
    *,
    signed: bool = False,
    left_out: Collection[str] = (),
) -> None:
    """Write a static INT8 copy of a convolutional graph: everything between its layers is INT8 as well.

    Args:
        source: FP32 graph.
        target: of the copy.
        feeds: calibration inputs; ranges are their least and greatest values.
        signed: S8S8, symmetric, for TensorRT; else U8S8, for processors.
        left_out: names of nodes that stay FP32.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        """Hands the calibration inputs out one by one."""

        def __init__(self) -> None:
            self._rest = iter(feeds)

        def get_next(self) -> dict[str, Any] | None:
            """Return the next input, or None."""
            return next((dict(feed) for feed in self._rest), None)

    with tempfile.TemporaryDirectory(dir=target.parent) as scratch, atomic_path(target) as temporary:
        made = Path(scratch) / "model.onnx"
        with _only_errors():
            quantize_static(
                source,
                made,
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QInt8 if signed else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=list(left_out),
                extra_options={"ActivationSymmetric": signed, "WeightSymmetric": True},
            )
        made.replace(temporary)


def quantize_fp16(source: Path, target: Path) -> None:
    """Write a copy whose constants and arithmetic are FP16; inputs and outputs keep their types."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with _only_errors():
        model = convert_float_to_float16(onnx.load(source), keep_io_types=True)
    with atomic_path(target) as temporary:
        onnx.save(model, temporary)


def quantizable(source: Path) -> list[NodeProto]:
    """Return the nodes that a method may leave in FP32: matrix products, and convolutions."""
    model = onnx.load(source)
    products = {node.name for node in products_of(model)}
    return [node for node in model.graph.node if node.name in products or node.op_type == CONVOLUTION]


def _required(source: Path) -> Sequence[NodeProto]:
    products = products_of(onnx.load(source))
    if not products:
        raise RecipeError(
            f"{source.name} has no matrix product with constant weights: nothing to quantize",
            hint="a convolutional graph needs `method: static`",
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
