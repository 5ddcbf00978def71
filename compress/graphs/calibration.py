"""Which texts set the scales of a quantized graph, and the range of every tensor over them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from compress.datasets.data import Dataset
from compress.networks.models import Network
from compress.onnx_graphs.session import open_session
from runtime.api import Encoded

if TYPE_CHECKING:
    import onnxruntime

Range = tuple[float, float]
Feeds = Mapping[str, NDArray[np.generic]]

TENSORS_AT_A_TIME = 16


def calibration_rows(data: Dataset, count: int, *, seed: int) -> NDArray[np.int64]:
    """Return rows [min(count, N)] of some texts, as many of every label as of any other (or one less).

    Labels with too few texts give all they have. The rows ascend.
    """
    return even_rows(data.targets, count, seed=seed)


def even_rows(targets: NDArray[np.int64], count: int, *, seed: int) -> NDArray[np.int64]:
    """Return the rows that `calibration_rows` does, of the class index of each of N texts."""
    rng = np.random.default_rng(seed)
    turn = np.empty(len(targets), dtype=np.int64)
    for label in np.unique(targets):
        rows = np.flatnonzero(targets == label)
        turn[rng.permutation(rows)] = np.arange(len(rows))
    order = np.lexsort((rng.permutation(len(targets)), turn))
    return np.sort(order[:count])


def feeds_of(network: Network, encoded: Encoded) -> Iterator[Feeds]:
    """Yield what a graph of the network takes, text by text: at its real length, without padding."""
    examples, names = network.examples(encoded), network.graph_inputs().names
    for row in range(len(encoded)):
        batch = examples.batch(np.array([row]))
        yield {name: tensor.numpy() for name, tensor in zip(names, batch, strict=True)}


def session_of(path: Path, names: Sequence[str]) -> onnxruntime.InferenceSession:
    """Return a session, on one thread, whose outputs are float tensors of a graph by name."""
    model = onnx.load(path)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names)
    return open_session(model.SerializeToString())


def ranges_of(path: Path, names: Sequence[str], feeds: Sequence[Feeds]) -> dict[str, Range]:
    """Return (least, greatest) value of float tensors of a graph over some inputs (MinMax calibration).

    TENSORS_AT_A_TIME are looked at in one run and only their extremes kept, so memory stays that of one text.

    Args:
        path: of an FP32 graph.
        names: of tensors in it.
        feeds: inputs.
    """
    found: dict[str, Range] = {}
    for start in range(0, len(names), TENSORS_AT_A_TIME):
        found |= _ranges(path, names[start : start + TENSORS_AT_A_TIME], feeds)
    return found


def _ranges(path: Path, names: Sequence[str], feeds: Sequence[Feeds]) -> dict[str, Range]:
    session = session_of(path, names)
    wanted = {item.name for item in session.get_inputs()}
    least, greatest = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    for feed in feeds:
        values = session.run(list(names), {name: array for name, array in feed.items() if name in wanted})
        least = np.minimum(least, [float(value.min()) for value in values])
        greatest = np.maximum(greatest, [float(value.max()) for value in values])
    return {name: (float(a), float(b)) for name, a, b in zip(names, least, greatest, strict=True)}
