"""What goes into a given graph and what comes out: told by names, types and shapes, or refused by name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from contract.errors import RecipeError
from runtime.wordpiece import ATTENTION_MASK, INPUT_IDS, TOKEN_TYPES

POSITIONS = "position_ids"
WHOLE = frozenset({TensorProto.INT64, TensorProto.INT32})
FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
# Role -> names that exporters have for it.
SYNONYMS: Mapping[str, frozenset[str]] = {
    INPUT_IDS: frozenset({INPUT_IDS, "ids", "input_word_ids", "token_ids", "tokens"}),
    ATTENTION_MASK: frozenset(
        {ATTENTION_MASK, "mask", "input_mask", "attn_mask", "masks", "attention_masks"}
    ),
    TOKEN_TYPES: frozenset(
        {TOKEN_TYPES, "segment_ids", "input_type_ids", "type_ids", "segments", "token_types"}
    ),
    POSITIONS: frozenset({POSITIONS, "positions", "pos_ids"}),
}
LOGITS = ("logits", "output", "output_0", "outputs", "scores", "score", "predictions", "classifier")
PROBABILITIES = ("probabilities", "probs", "output_probability", "softmax")
# Outputs that are no answers, whatever their shape is.
STATES = frozenset(
    {
        "last_hidden_state",
        "pooler_output",
        "sentence_embedding",
        "token_embeddings",
        "hidden_states",
        "embeddings",
    }
)
KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"})
TASK = "optimum-cli export onnx --task text-classification"
ONE_LABEL = "a teacher here says which one of several labels a text has"


@dataclass(frozen=True)
class Port:
    """An input or output of a graph. dims: None where an axis is of any length; shape None where unknown."""

    name: str
    kind: int
    dims: tuple[int | None, ...] | None

    @classmethod
    def of(cls, item: ValueInfoProto) -> Port:
        """Return the port of a graph's declaration."""
        tensor = item.type.tensor_type
        known = item.type.HasField("tensor_type") and tensor.HasField("shape")
        dims = tuple(axis.dim_value or None for axis in tensor.shape.dim) if known else None
        return cls(item.name, tensor.elem_type if item.type.HasField("tensor_type") else 0, dims)

    @property
    def plain(self) -> str:
        """Its name without what exporters put around it: `serving_default_ids:0`, `ids.1`, `ids___9`."""
        name = self.name.lower().partition(":")[0].removeprefix("serving_default_").replace("-", "_")
        return re.sub(r"(\.\d+|_{2,}\d+)$", "", name)

    @property
    def told(self) -> str:
        """It in a few words, for errors."""
        kind = TensorProto.DataType.Name(self.kind).lower() if self.kind else "no tensor"
        dims = "" if self.dims is None else " [" + ", ".join(str(n or "any") for n in self.dims) + "]"
        return f"{self.name!r} ({kind}{dims})"


def inputs_of(model: ModelProto, source: str) -> dict[str, Port]:
    """Return the inputs of a graph by the role they play.

    Raises:
        RecipeError: an input that a text classifier over token ids does not have, naming it.
    """
    given = {tensor.name for tensor in model.graph.initializer}
    ports = [Port.of(item) for item in model.graph.input if item.name not in given]
    strings = next((port for port in ports if port.kind == TensorProto.STRING), None)
    if strings is not None:
        raise RecipeError(
            f"the graph's input {strings.told} takes texts, not token ids: its features are made inside, "
            "in a way that no tokenizer.json tells",
            where=source,
            hint="export the classifier alone, or train a `linear` variant on its answers",
        )
    whole = [port for port in ports if port.kind in WHOLE]
    if len(ports) == 1 and whole:
        found = {INPUT_IDS: whole[0]}
    else:
        found = {}
        for port in ports:
            role = next((role for role, names in SYNONYMS.items() if port.plain in names), None)
            if role is None or role in found:
                raise RecipeError(
                    f"the graph's input {port.told} is none of {', '.join(SYNONYMS)}",
                    where=source,
                    hint="export a text classifier with inputs of these names; sor4onnx renames those given",
                )
            found[role] = port
    _require_kinds(found, source)
    return found


def _require_kinds(found: Mapping[str, Port], source: str) -> None:
    if INPUT_IDS not in found:
        raise RecipeError(f"the graph has no input {INPUT_IDS}", where=source, hint=TASK)
    for role, port in found.items():
        kinds = WHOLE if role != ATTENTION_MASK else WHOLE | FLOATS | {TensorProto.BOOL}
        if port.kind not in kinds:
            raise RecipeError(f"the graph's input {port.told} is not of a type that {role} has", where=source)
        if port.dims is not None and len(port.dims) != 2:
            raise RecipeError(
                f"the graph's input {port.told} has {len(port.dims)} axes; texts come as [batch, length]",
                where=source,
            )


def answers_of_graph(outputs: Sequence[Port], labels: int | None, source: str) -> Port:
    """Return the output that holds logits or probabilities [batch, labels].

    Args:
        outputs: with their shapes, as declared or as run.
        labels: named by the configuration, where it names any.
        source: for errors.

    Raises:
        RecipeError: none of them, or several, naming what the graph does instead.
    """
    names = {port.plain for port in outputs}
    told = ", ".join(port.told for port in outputs)

    def refuse(rule: str, hint: str | None = TASK) -> RecipeError:
        return RecipeError(f"the graph {rule}; {ONE_LABEL} (its outputs: {told})", where=source, hint=hint)

    if {"start_logits", "end_logits"} <= names:
        raise refuse("marks an answer in a text (question answering)")
    open_ = [port for port in outputs if port.kind in FLOATS and port.plain not in STATES]
    wide = [port for port in open_ if port.dims is None or len(port.dims) == 2]
    several = [port for port in wide if port.dims is None or port.dims[-1] != 1]
    if len(several) > 1:
        widths = {None, labels}
        fitting = [port for port in several if labels and (port.dims is None or port.dims[-1] in widths)]
        several = fitting or several
        preferred = [port for name in (*LOGITS, *PROBABILITIES) for port in several if port.plain == name]
        several = preferred[:1] or several
    if len(several) == 1:
        return several[0]
    if several:
        raise refuse("has several outputs that could be logits", "export it with its logits alone")
    if any(port.dims is not None and len(port.dims) == 3 for port in open_):
        raise refuse("answers for every token (token classification, or a language model)")
    if wide or any(port.dims is not None and len(port.dims) < 2 for port in open_):
        raise refuse("gives one number, not a label (regression, or a single sigmoid)", None)
    if not open_ and any(port.plain in STATES for port in outputs):
        raise refuse("is an encoder without a head: it gives states, no labels")
    kinds = {port.kind for port in outputs}
    if kinds <= WHOLE | {TensorProto.STRING, 0}:
        raise refuse(
            "gives labels alone, no logits or probabilities as a tensor",
            "export it without ArgMax; with skl2onnx, options={'zipmap': False}",
        )
    raise refuse("has no output [batch, labels]")


def maker_of(graph: GraphProto, name: str) -> NodeProto | None:
    """Return the node that a tensor comes from, through nodes that change nothing but its type."""
    makers = {out: node for node in graph.node for out in node.output}
    node = makers.get(name)
    while node is not None and node.op_type in {"Identity", "Cast"}:
        node = makers.get(node.input[0])
    return node


def require_one_label(model: ModelProto, output: str, source: str) -> None:
    """Raise RecipeError where a graph ends in a sigmoid: then every label has a probability of its own."""
    end = maker_of(model.graph, output)
    if end is not None and end.op_type == "Sigmoid":
        raise RecipeError(
            f"the graph ends in a Sigmoid: a text may have several labels at once (multi-label); {ONE_LABEL}",
            where=source,
            hint="export the logits of a head that was trained for one label",
        )


def nodes_of(model: ModelProto) -> Iterator[NodeProto]:
    """Yield every node of a model, those of inner graphs and of functions among them."""
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        yield from _inner(nodes)


def _inner(nodes: Sequence[NodeProto]) -> Iterator[NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _inner(graph.node)


def require_known_operators(model: ModelProto, source: str) -> None:
    """Raise RecipeError where an operator comes with a library of its own, which is not loaded."""
    own = {(function.domain, function.name) for function in model.functions}
    for node in nodes_of(model):
        if node.domain not in KNOWN_DOMAINS and (node.domain, node.op_type) not in own:
            raise RecipeError(
                f"the graph has the operator {node.domain}::{node.op_type}, which needs a library of its "
                "own; none is loaded",
                where=source,
                hint="export it with ONNX's own operators, its tokenizer as tokenizer.json beside it",
            )
