"""Patterns in the nodes of an exported graph: who makes a tensor, who reads it, which are constant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper

from compress.onnx_graphs.forms import BRANCHING, read_by


class Graph:
    """A graph to match patterns in: who makes a tensor, who reads it, which are constant."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.proto = model.graph
        self.nodes = list(model.graph.node)
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.refresh()

    def refresh(self) -> None:
        """Read nodes again after they have changed."""
        self.maker = {out: node for node in self.nodes for out in node.output}
        self.readers = Counter(name for node in self.nodes for name in node.input)
        for node in self.nodes:
            if node.op_type in BRANCHING:
                self.readers.update(read_by(node) - set(node.input))
        self.readers.update(item.name for item in self.proto.output)

    def made_by(self, name: str, *kinds: str) -> NodeProto | None:
        """Return the node that makes a tensor, if it is of one of those kinds."""
        node = self.maker.get(name)
        return node if node is not None and node.op_type in kinds else None

    def only_reader(self, name: str, *kinds: str) -> NodeProto | None:
        """Return the one node that reads a tensor, if it is of one of those kinds."""
        if self.readers[name] != 1:
            return None
        return next((node for node in self.nodes if name in node.input and node.op_type in kinds), None)

    def back(self, name: str, *kinds: str) -> NodeProto | None:
        """Return the node at the end of a chain of kinds, each the first input of the one before."""
        node = None
        for kind in kinds:
            node = self.made_by(name, kind)
            if node is None:
                return None
            name = node.input[0]
        return node

    def value(self, name: str) -> NDArray[np.generic] | None:
        """Return a constant."""
        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def holds(self, name: str, value: int) -> bool:
        """Return whether a tensor is a constant of one number, this one."""
        found = self.value(name)
        return found is not None and found.size == 1 and bool(found.item() == value)

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        """Add a constant, unless there is one of that name, and return the name."""
        if name not in self.constants:
            self.proto.initializer.append(numpy_helper.from_array(value, name))
            self.constants[name] = self.proto.initializer[-1]
        return name

    def biased(self, name: str) -> tuple[str, str] | None:
        """Return (product, bias) of a tensor that is a matrix product plus a constant vector."""
        node = self.made_by(name, "Add")
        for product, bias in () if node is None else (tuple(node.input), tuple(reversed(node.input))):
            constant = self.constants.get(bias)
            if self.made_by(product, "MatMul") and constant is not None and len(constant.dims) == 1:
                return product, bias
        return None

    def of_kind(self, kind: str) -> Iterator[NodeProto]:
        """Yield the nodes of a kind, as they are now."""
        yield from [node for node in self.nodes if node.op_type == kind]

    def replace(self, old: NodeProto, new: Iterable[NodeProto]) -> None:
        """Put nodes in the place of one; what only the old one needed goes with `write`."""
        place = next(index for index, node in enumerate(self.nodes) if node is old)
        self.nodes[place : place + 1] = new
        self.refresh()

    def write(self) -> None:
        """Give the model its new nodes, and neither nodes nor constants that nothing needs."""
        while True:
            kept = [node for node in self.nodes if any(self.readers[out] for out in node.output)]
            if len(kept) == len(self.nodes):
                break
            self.nodes = kept
            self.refresh()
        constants = [tensor for tensor in self.proto.initializer if self.readers[tensor.name]]
        del self.proto.node[:]
        self.proto.node.extend(self.nodes)
        del self.proto.initializer[:]
        self.proto.initializer.extend(constants)
