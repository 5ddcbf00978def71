"""Cuts an exported graph between the halves of its layers, and joins halves into graphs of other widths.

An exported encoder is a chain: embeddings, then per layer an attention half and a feed-forward half, each of
which ends in a normalisation and depends on the one before through that alone. Tracing a network takes
seconds, joining takes milliseconds, and what is joined is node for node what the exporter and the quantizer
wrote: so many networks can be timed that a latency table can be solved from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from contract.errors import SluiceError
from contract.files import atomic_path

NORMALISATION = "LayerNormalization"


class Halves:
    """The halves of the layers of one exported graph.

    Args:
        path: a graph, quantized or not, of a network of `compress.networks.network` whose half layers share
            no weights (equal constants are merged by the exporter, and cannot be told apart).
        layers: how many layers it has, none without heads or neurons.

    Raises:
        SluiceError: when the graph is not such a chain.
    """

    def __init__(self, path: Path, *, layers: int) -> None:
        self._model = onnx.load(path)
        graph = self._model.graph
        self._made_by = {name: index for index, node in enumerate(graph.node) for name in node.output}
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._seams = [node.output[0] for node in graph.node if node.op_type == NORMALISATION]
        self._seam_set = frozenset(self._seams)
        self._moves = self._dependent()
        if len(self._seams) != 2 * layers + 1:
            raise SluiceError(
                f"{path.name} has {len(self._seams)} normalisations where a network of {layers} layers has "
                f"{2 * layers + 1}: it cannot be cut into halves"
            )

    def _dependent(self) -> list[bool]:
        """Return for every node whether it depends on a seam: the others are shared by all halves."""
        moves: list[bool] = []
        for node in self._model.graph.node:
            known = (self._made_by.get(name) for name in node.input)
            moves.append(
                any(name in self._seam_set for name in node.input)
                or any(moves[index] for index in known if index is not None)
            )
        return moves

    def join(self, attention: Sequence[int | None], feed: Sequence[int | None], path: Path) -> None:
        """Write the graph whose i-th layer is attention half attention[i] and feed-forward half feed[i].

        Where there is None, the layer has no such half. A half may be used several times: every use has
        constants of its own, as a real network would.
        """
        graph = self._model.graph
        chosen = [
            2 * half + side
            for pair in zip(attention, feed, strict=True)
            for side, half in enumerate(pair, start=1)
            if half is not None
        ]
        shared = set(self._behind(self._seams[0]))
        moved: list[onnx.NodeProto] = []
        constants: dict[str, onnx.TensorProto] = {}
        states = self._seams[0]
        for place, seam in enumerate(chosen):
            behind = self._behind(self._seams[seam])
            shared.update(index for index in behind if not self._moves[index])
            own = [index for index in behind if self._moves[index]]
            moved += self._copied(own, states, f"~{place}", constants)
            states = f"{self._seams[seam]}~{place}"
        behind = self._behind(graph.output[0].name)
        shared.update(index for index in behind if not self._moves[index])
        moved += self._copied([i for i in behind if self._moves[i]], states, "", constants)
        nodes = [graph.node[index] for index in sorted(shared)]
        for node in nodes:
            constants.update({name: self._constants[name] for name in node.input if name in self._constants})
        joined = onnx.helper.make_graph(
            [*nodes, *moved], graph.name, graph.input, graph.output, list(constants.values())
        )
        model = onnx.helper.make_model(
            joined, opset_imports=self._model.opset_import, ir_version=self._model.ir_version
        )
        with atomic_path(path) as temporary:
            onnx.save(model, temporary)

    def _behind(self, output: str) -> list[int]:
        """Return the nodes that a tensor needs, back to the seams before it, in the graph's order."""
        found: set[int] = set()
        queue = [output]
        while queue:
            name = queue.pop()
            index = self._made_by.get(name)
            if index is None or index in found or (name in self._seam_set and name != output):
                continue
            found.add(index)
            queue.extend(self._model.graph.node[index].input)
        return sorted(found)

    def _copied(
        self, indices: Sequence[int], states: str, mark: str, constants: dict[str, onnx.TensorProto]
    ) -> list[onnx.NodeProto]:
        """Return copies of nodes that read `states`, with marked names; their constants are added."""
        own = {name for index in indices for name in self._model.graph.node[index].output}
        kept = self._model.graph.output[0].name
        copies = []
        for index in indices:
            copy = onnx.NodeProto()
            copy.CopyFrom(self._model.graph.node[index])
            copy.name = f"{copy.name}{mark}"
            for at, name in enumerate(copy.input):
                if name in self._constants:
                    copy.input[at] = f"{name}{mark}"
                    constant = onnx.TensorProto()
                    constant.CopyFrom(self._constants[name])
                    constant.name = copy.input[at]
                    constants[constant.name] = constant
                elif name in self._seam_set:
                    copy.input[at] = states
                elif name in own:
                    copy.input[at] = f"{name}{mark}"
            for at, name in enumerate(copy.output):
                copy.output[at] = name if name == kept else f"{name}{mark}"
            copies.append(copy)
        return copies
