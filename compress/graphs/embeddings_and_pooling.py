"""Rewrites of the two ends of an exported encoder: the sum of embeddings, and the mean over tokens."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper

from compress.graphs.matching import Graph
from runtime.wordpiece import ATTENTION_MASK, INPUT_IDS


def slice_places(graph: Graph, added: NodeProto) -> bool:
    """Embeddings of places, counted and gathered, become one slice of their table; the values are the same.

    Args:
        graph: in which to do it.
        added: the addition of the embeddings of words [B, T, H] and of places [1, T, H].
    """
    for place, name in enumerate(added.input):
        words = graph.made_by(added.input[1 - place], "Gather") if len(added.input) == 2 else None
        if words is not None and words.input[1] == INPUT_IDS and words.input[0] in graph.constants:
            sliced = _slice_of(graph, name)
            if sliced is not None:
                added.input[place] = sliced.output[0]
                graph.replace(added, [sliced, added])
                return True
    return False


def _slice_of(graph: Graph, name: str) -> NodeProto | None:
    """Return the slice [T, H] that holds what Unsqueeze(Gather(table, Range(0, T) + offset)) does."""
    gathered, unsqueezed = graph.back(name, "Unsqueeze", "Gather"), graph.made_by(name, "Unsqueeze")
    if gathered is None or unsqueezed is None or not graph.holds(unsqueezed.input[1], 0):
        return None
    table, places = graph.value(gathered.input[0]), gathered.input[1]
    shifted = graph.made_by(places, "Add")
    offset = None if shifted is None else graph.value(shifted.input[1])
    counted = graph.made_by(places if shifted is None else shifted.input[0], "Range")
    squeezed = None if counted is None else graph.made_by(counted.input[1], "Squeeze")
    length = None if squeezed is None else graph.made_by(squeezed.input[0], "Shape")
    if table is None or counted is None or length is None or (shifted is not None and offset is None):
        return None
    ends = {item.name: item.i for item in length.attribute}
    from_zero = graph.holds(counted.input[0], 0) and graph.holds(counted.input[2], 1)
    if not from_zero or table.ndim != 2 or ends != {"start": 1, "end": 2}:
        return None
    if length.input[0] not in (INPUT_IDS, ATTENTION_MASK) or any(item.i for item in gathered.attribute):
        return None
    kept, first = gathered.input[0], 0 if offset is None else offset
    # One row left would be added to every place of a text that is longer than the table.
    if np.size(first) != 1 or len(table) - int(first) < 2:
        return None
    if offset is not None:
        kept = graph.constant(f"{kept}_from_{offset}", table[int(first) :])
    zero = graph.constant("slice_zero", np.array([0], np.int64))
    return helper.make_node(
        "Slice", [kept, zero, length.output[0], zero], [f"{name}_sliced"], name=f"slice_{name}"
    )


def pool_by_product(graph: Graph, divided: NodeProto) -> bool:
    """The mean of the states of tokens becomes a product of the mask's shares [B, 1, T] with [B, T, H].

    Args:
        graph: in which to do it.
        divided: the division of the sum over tokens by their number.
    """
    summed, counted = (graph.made_by(name, "ReduceSum") for name in divided.input)
    masked = None if summed is None else graph.made_by(summed.input[0], "Mul")
    mask = None if counted is None else graph.back(counted.input[0], "Unsqueeze", "Cast")
    unsqueezed = None if counted is None else graph.made_by(counted.input[0], "Unsqueeze")
    if summed is None or counted is None or masked is None or mask is None or unsqueezed is None:
        return False
    if mask.input[0] != ATTENTION_MASK or not graph.holds(unsqueezed.input[1], 2):
        return False
    if not (_drops_places(graph, summed) and _drops_places(graph, counted)):
        return False
    states = [name for name in masked.input if name != counted.input[0]]
    if len(states) != 1:
        return False
    axis, name = summed.input[1], divided.output[0]
    graph.replace(
        divided,
        [
            helper.make_node(
                "LpNormalization", [mask.output[0]], [f"{name}_shares"], name=f"shares_{name}", axis=1, p=1
            ),
            helper.make_node("Unsqueeze", [f"{name}_shares", axis], [f"{name}_rows"], name=f"rows_{name}"),
            helper.make_node("MatMul", [f"{name}_rows", states[0]], [f"{name}_means"], name=f"means_{name}"),
            helper.make_node("Squeeze", [f"{name}_means", axis], [name], name=f"pool_{name}"),
        ],
    )
    return True


def _drops_places(graph: Graph, summed: NodeProto) -> bool:
    """Whether a sum is over axis 1 and drops it."""
    settings = {item.name: item.i for item in summed.attribute}
    return len(summed.input) == 2 and graph.holds(summed.input[1], 1) and settings.get("keepdims", 1) == 0
