"""A graph exactly as it was given, asked one text at a time: what everything made of it is compared with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from compress.onnx_graphs.forms import IR
from compress.onnx_graphs.ports import POSITIONS, Port
from compress.onnx_graphs.session import open_session
from contract.errors import RecipeError
from runtime.api import Encoded
from runtime.wordpiece import ATTENTION_MASK, INPUT_IDS, TOKEN_TYPES

if TYPE_CHECKING:
    import onnxruntime

Row = Mapping[str, NDArray[np.int64]]
# ONNX Runtime names types otherwise than ONNX does.
_KINDS = {
    "tensor(float)": TensorProto.FLOAT,
    "tensor(float16)": TensorProto.FLOAT16,
    "tensor(bfloat16)": TensorProto.BFLOAT16,
    "tensor(double)": TensorProto.DOUBLE,
    "tensor(int64)": TensorProto.INT64,
    "tensor(int32)": TensorProto.INT32,
    "tensor(string)": TensorProto.STRING,
    "tensor(bool)": TensorProto.BOOL,
}


@dataclass
class Given:
    """A session of the graph as it was given.

    Attributes:
        session: of the graph; its outputs are as the exporter named them.
        inputs: by role.
        source: for errors.
        pad_id: what fills a graph of one length beyond a text.
    """

    session: onnxruntime.InferenceSession
    inputs: Mapping[str, Port]
    source: str
    pad_id: int = 0
    notes: tuple[str, ...] = field(default=())

    @property
    def batch(self) -> int | None:
        """How many rows it always takes, as declared."""
        return self._axis(0)

    @property
    def length(self) -> int | None:
        """How many tokens it always takes, as declared."""
        return self._axis(1)

    def _axis(self, number: int) -> int | None:
        found = {port.dims[number] for port in self.inputs.values() if port.dims is not None} - {None}
        if number == 0 and found != {1}:
            # Positions are often declared for one row, whatever the others have.
            ids = self.inputs[INPUT_IDS].dims
            return None if ids is None else ids[0]
        return min((size for size in found if size is not None), default=None)

    def outputs(self, row: Row) -> tuple[Port, ...]:
        """Return its outputs as they come out for a text. Raises RecipeError where it fails."""
        names = [item.name for item in self.session.get_outputs()]
        kinds = [_KINDS.get(item.type, 0) for item in self.session.get_outputs()]
        found = self._run(names, row)
        shapes = [tuple(array.shape) if hasattr(array, "shape") else None for array in found]
        return tuple(Port(*one) for one in zip(names, kinds, shapes, strict=True))

    def answers(self, output: str, rows: Sequence[Row]) -> NDArray[np.float64]:
        """Return what an output holds for N texts, [N, C]. Raises RecipeError where it fails."""
        return np.stack([np.asarray(self._run([output], row)[0][0], dtype=np.float64) for row in rows])

    def runs(self, row: Row) -> bool:
        """Return whether it answers a text."""
        try:
            self._run(None, row)
        except RecipeError:
            return False
        return True

    def _run(self, names: Sequence[str] | None, row: Row) -> list[NDArray[np.generic]]:
        feeds = {port.name: self._fed(role, port, row) for role, port in self.inputs.items()}
        try:
            found: list[NDArray[np.generic]] = self.session.run(names, feeds)
        except Exception as problem:  # noqa: BLE001 (ONNX Runtime's errors share no public base)
            raise RecipeError(
                f"the graph fails at a text of {row[INPUT_IDS].shape[1]} tokens: {first_line(problem)}",
                where=self.source,
            ) from None
        return found

    def _fed(self, role: str, port: Port, row: Row) -> NDArray[np.generic]:
        ids = row[INPUT_IDS]
        length = self.length or ids.shape[1]
        if role == POSITIONS:
            whole = np.arange(length)[None]
        else:
            fill = self.pad_id if role == INPUT_IDS else 0
            whole = np.full((1, length), fill, np.int64)
            whole[:, : ids.shape[1]] = row.get(role, np.zeros_like(ids))
        repeated = np.repeat(whole, (port.dims or (None,))[0] or self.batch or 1, axis=0)
        return repeated.astype(helper.tensor_dtype_to_np_dtype(port.kind))


def open_given(model: ModelProto, inputs: Mapping[str, Port], source: str) -> Given:
    """Return a graph, its data inside, ready to be asked.

    The version of the format is lowered where that alone keeps ONNX Runtime from reading it.

    Raises:
        RecipeError: ONNX Runtime cannot read it, with the reason.
    """
    import onnxruntime

    notes: tuple[str, ...] = ()
    version = model.ir_version
    try:
        session = open_session(model.SerializeToString())
    except Exception as problem:  # noqa: BLE001 (ONNX Runtime's errors share no public base)
        told = problem
        model.ir_version = IR
        try:
            if version <= IR:
                raise problem
            session = open_session(model.SerializeToString())
        except Exception:  # noqa: BLE001
            raise RecipeError(
                f"ONNX Runtime {onnxruntime.__version__} does not read the graph: {first_line(told)}",
                where=source,
                hint="export it with opset_version=17, or update onnxruntime",
            ) from None
        notes = (f"the graph's format, IR version {version}, is read as version {IR}",)
    return Given(session, inputs, source, notes=notes)


def first_line(problem: BaseException) -> str:
    """Return what ONNX Runtime says, without its places in source code and numbers of errors."""
    text = " ".join(str(problem).split())
    newest = re.search(r"Opset (\d+) is under development", text)
    if newest is not None:
        return f"it is written in opset {newest[1]}, newer than any that it knows"
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    for start in ("Status Message: ", "failed:"):
        text = text.partition(start)[2] or text
    if text.startswith("/onnxruntime_src"):
        text = text.partition("was false. ")[2] or text
    return text.strip()[:240]


def rows_of(encoded: Encoded) -> Iterator[Row]:
    """Yield N texts each alone and without padding: ids, mask and segments [1, T]."""
    for number, length in enumerate(encoded.lengths.tolist()):
        ids = encoded.arrays[INPUT_IDS][number : number + 1, :length]
        row = {INPUT_IDS: ids, ATTENTION_MASK: np.ones_like(ids)}
        types = encoded.arrays.get(TOKEN_TYPES)
        if types is not None:
            row[TOKEN_TYPES] = types[number : number + 1, :length]
        yield row
