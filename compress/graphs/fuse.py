"""Rewrites of an exported graph for ONNX Runtime on a processor: fewer operators, the same answers.

At a dozen tokens an operator costs more to call than to compute, and some of the fusions that ONNX
Runtime makes by itself are slower than what they replace. Every rewrite is made where its pattern is found
and nowhere else, so a graph of another shape comes out as it went in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

import onnx
from onnx import NodeProto, TensorProto, helper

from compress.graphs.embeddings_and_pooling import pool_by_product, slice_places
from compress.graphs.matching import Graph
from compress.onnx_graphs.forms import CONTRIB
from contract.files import atomic_path
from runtime.wordpiece import ATTENTION_MASK

_MASK = f"{ATTENTION_MASK}_int32"


def fuse_file(path: Path) -> Counter[str]:
    """Rewrite a graph file in place, atomically, and return how often each rewrite was made."""
    model = onnx.load(path)
    made = fuse(model)
    if made:
        with atomic_path(path) as temporary:
            onnx.save(model, temporary)
    return made


def fuse(model: onnx.ModelProto, rewrites: Collection[str] | None = None) -> Counter[str]:
    """Rewrite a graph in place and return how often each rewrite was made.

    attention: everything between the query-key-value product and the output product becomes one
    `MultiHeadAttention` that adds the bias, scales, masks and mixes. gelu: with the bias before it, one
    `BiasGelu`. embeddings: those of places become a slice of their table. residual: an addition before a
    layer normalisation becomes `Sum`, bias included, because ONNX Runtime would turn the addition into
    `SkipLayerNormalization`, which on a processor takes three times as long as the two. pooling: the mean
    over tokens becomes a product with the mask, normalised to sum to 1.

    Args:
        model: to rewrite.
        rewrites: of REWRITES, those to make; all by default.
    """
    graph = Graph(model)
    made: Counter[str] = Counter()
    for name, (kind, rewrite) in REWRITES.items():
        if rewrites is None or name in rewrites:
            made[name] = sum(rewrite(graph, node) for node in graph.of_kind(kind))
    graph.write()
    contributed = made["attention"] or made["gelu"]
    if contributed and CONTRIB not in {item.domain for item in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(CONTRIB, 1))
    return +made


def _fuse_attention(graph: Graph, softmax: NodeProto) -> bool:
    """softmax(mask(Q K' scale)) V over a split product, as one operator."""
    masked = graph.back(softmax.input[0], "Where")
    unseen = None if masked is None else graph.back(masked.input[0], "Not", "Unsqueeze", "Cast")
    scaled = None if masked is None else graph.made_by(masked.input[2], "Mul")
    if masked is None or scaled is None or unseen is None or unseen.input[0] != ATTENTION_MASK:
        return False
    scale, scores = graph.value(scaled.input[1]), graph.made_by(scaled.input[0], "MatMul")
    mixed = graph.only_reader(softmax.output[0], "MatMul")
    merged = mixed and graph.only_reader(mixed.output[0], "Transpose")
    merged = merged and graph.only_reader(merged.output[0], "Reshape")
    if scale is None or scores is None or mixed is None or merged is None:
        return False
    sources = [graph.back(name, "Transpose", "Reshape") for name in (*scores.input, mixed.input[1])]
    reshapes = [node for node in sources if node is not None]
    split = graph.made_by(reshapes[0].input[0], "Split") if len(reshapes) == 3 else None
    if split is None or [node.input[0] for node in reshapes] != list(split.output):
        return False
    biased, heads = graph.biased(split.input[0]), _heads(graph, reshapes[0].input[1])
    if biased is None or heads is None:
        return False
    product, bias = biased
    if _MASK not in graph.maker:
        graph.nodes.insert(
            0, helper.make_node("Cast", [ATTENTION_MASK], [_MASK], name=_MASK, to=TensorProto.INT32)
        )
    split.input[0] = product
    attention = helper.make_node(
        "MultiHeadAttention",
        [*split.output, bias, _MASK],
        [merged.output[0]],
        name=f"attention_{merged.output[0]}",
        domain=CONTRIB,
        num_heads=heads,
        scale=float(scale),
    )
    graph.replace(merged, [attention])
    return True


def _heads(graph: Graph, shape: str) -> int | None:
    """Return the third entry of a shape [batch, length, heads, size]."""
    parts = graph.made_by(shape, "Concat")
    value = graph.value(parts.input[2]) if parts is not None and len(parts.input) == 4 else None
    return None if value is None or value.size != 1 else int(value.item())


def _fuse_gelu(graph: Graph, gelu: NodeProto) -> bool:
    biased = graph.biased(gelu.input[0])
    exact = all(item.s != b"tanh" for item in gelu.attribute)
    if biased is None or not exact or graph.readers[gelu.input[0]] != 1:
        return False
    fused = helper.make_node("BiasGelu", biased, gelu.output, name=f"bias_{gelu.name}", domain=CONTRIB)
    graph.replace(gelu, [fused])
    return True


def _split_residual(graph: Graph, norm: NodeProto) -> bool:
    added = graph.made_by(norm.input[0], "Add")
    if added is None:
        return False
    terms: list[str] = []
    for term in added.input:
        biased = graph.biased(term) if graph.readers[term] == 1 else None
        terms += [term] if biased is None else biased
    graph.replace(added, [helper.make_node("Sum", terms, added.output, name=f"sum_{added.name}")])
    return True


# In the order in which they are made, with the kind of node that each starts from.
REWRITES: dict[str, tuple[str, Callable[[Graph, NodeProto], bool]]] = {
    "attention": ("Softmax", _fuse_attention),
    "gelu": ("Gelu", _fuse_gelu),
    "embeddings": ("Add", slice_places),
    "residual": ("LayerNormalization", _split_residual),
    "pooling": ("Div", pool_by_product),
}
