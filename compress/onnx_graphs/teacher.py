"""The teacher that is an ONNX graph already: put into the form that is served, and compared with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto
from tokenizers import Tokenizer

from compress.datasets.data import DATA, Dataset, read_dataset
from compress.encoders import write_tokenizer
from compress.networks.heads import match_head
from compress.networks.refusals import labels_in
from compress.networks.tokenizer import kept_length, served_tokenizer
from compress.onnx_graphs.adapting import Ends
from compress.onnx_graphs.finding import find_graph
from compress.onnx_graphs.fitting import Fitted, fit_graph
from compress.onnx_graphs.forms import (
    narrow_in,
    parameters_of,
    precision_of,
    prepare,
    quantized_in,
    word_table_of,
)
from compress.onnx_graphs.given import Given, Row, open_given, rows_of
from compress.onnx_graphs.network import GRAPH, GraphNetwork, GraphShape
from compress.onnx_graphs.ports import Port, answers_of_graph, inputs_of, require_one_label
from compress.onnx_graphs.reading import config_of
from compress.onnx_graphs.source import GraphSource
from compress.recipes.recipe import TeacherPart
from compress.steps import Context, Result
from contract.errors import RecipeError
from contract.files import write_bytes
from runtime.encoders import load_encoder
from runtime.wordpiece import INPUT_IDS, TOKEN_TYPES

UNLIMITED = 8192
# Texts whose answers are compared with those of the graph as it was given.
COMPARED = 128
# Kinds of models whose positions begin beyond the number of the padding token.
FROM_PAD = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl", "data2vec-text"})
SUM = 1e-3
FEW_BITS = "some of its weights are kept in few bits; it computes in float32"
NARROW = "its weights are half precision; they are served as float32, which every processor computes in"


@dataclass(frozen=True)
class _Opened:
    """A graph as it was given, and in the form that is worked with."""

    given: Given
    prepared: ModelProto
    narrow: bool
    table: tuple[str, int, int] | None


def take_graph(context: Context) -> Result:
    """Put the graph of the recipe into the form that is served, and compare it with what was given.

    Raises:
        RecipeError: a graph, configuration, labels or tokenizer that no teacher can be made from, by name.
    """
    part = context.recipe.teacher
    found = find_graph(part.weights)
    if found is None:
        raise RecipeError("teacher.weights: there is no ONNX graph", where=part.weights)
    data = read_dataset(context.inputs["data"].file(DATA))
    context.update(0.1, "reading the graph")
    opened = _open(found)
    given = opened.given
    kept, notes = _kept(part, found, given)
    texts = _compared(data)
    rows = opened.table[1] if opened.table else 1 << 31
    served = served_tokenizer(found.folder, rows=rows, max_length=kept, texts=texts[: COMPARED // 2])
    types = served.token_types and TOKEN_TYPES in given.inputs
    spec = write_tokenizer(context.folder, served.content, max_length=kept, token_types=types)
    asked = list(rows_of(load_encoder(context.folder, spec).encode(texts)))
    asked.append(_long_row(asked, kept))

    context.update(0.4, "comparing with the graph as it was given")
    ends, told = _ends(found, opened, asked, part, data.labels)
    precision, few_bits = precision_of(opened.prepared), quantized_in(opened.prepared)
    tokenizer = Tokenizer.from_str(served.content.decode())
    fitted = fit_graph(
        opened.prepared,
        given,
        ends,
        asked,
        pads=(tokenizer.token_to_id("[PAD]") or 0, given.pad_id),
        most=kept,
        precision=precision,
        rounded=opened.narrow or few_bits,
    )
    write_bytes(context.folder / GRAPH, fitted.model.SerializeToString())
    pieces = opened.table[1] if opened.table else max(tokenizer.get_vocab().values()) + 1
    shape = _shape(fitted, pieces, kept, classes=len(data.labels), token_types=types, pad_id=given.pad_id)
    network = GraphNetwork(shape, context.folder / GRAPH)
    network.save(context.folder)
    every = [*given.notes, *notes, *served.notes, *told, *fitted.notes]
    every += [NARROW] if opened.narrow else []
    every += [FEW_BITS] if few_bits and precision == "fp32" else []
    for note in every:
        context.update(0.9, note)
    return {
        **network.summary(),
        "encoder": spec.model_dump(mode="json"),
        "notes": every,
        "verification": fitted.verification.model_dump(mode="json"),
    }


def _open(found: GraphSource) -> _Opened:
    model, source, config = found.whole(), found.source, config_of(found)
    inputs, narrow = inputs_of(model, source), narrow_in(model)
    pad = config.get("pad_token_id")
    given = open_given(model, inputs, source)
    prepared = prepare(model, source)
    table = word_table_of(prepared, inputs[INPUT_IDS].name)
    rows = table[1] if table else UNLIMITED
    given.pad_id = pad if isinstance(pad, int) and 0 < pad < rows else 0
    return _Opened(given, prepared, narrow, table)


def _kept(part: TeacherPart, found: GraphSource, given: Given) -> tuple[int, tuple[str, ...]]:
    """Return the tokens kept of each text, fewer than the recipe's default where the graph takes no more."""
    longest = given.length or _longest(config_of(found))
    kept, notes = kept_length(part, longest, found.folder.asked_length, found.source)
    if given.runs(_row_of(kept)):
        return kept, notes
    if "max_length" in part.model_fields_set:
        given.outputs(_row_of(kept))
    low, high = 1, kept
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if given.runs(_row_of(middle)) else (low, middle)
    given.outputs(_row_of(low))
    return low, (f"{low} tokens are kept of each text: the graph takes no more",)


def _longest(config: Mapping[str, Any]) -> int:
    """Return how many tokens a configuration has places for."""
    found = next((config[key] for key in ("max_position_embeddings", "n_positions") if key in config), None)
    if not isinstance(found, int) or found <= 0:
        return UNLIMITED
    pad = config.get("pad_token_id")
    skipped = (pad if isinstance(pad, int) else 1) + 1 if config.get("model_type") in FROM_PAD else 0
    return max(1, min(found - skipped, UNLIMITED))


def _compared(data: Dataset) -> tuple[str, ...]:
    """Return labelled texts, evenly taken from training and validation: files are often sorted by label."""
    some = data.of("train", "validation")
    places = np.linspace(0, len(some) - 1, min(COMPARED, len(some))).round().astype(np.int64)
    return some.take(places).texts


def _row_of(length: int) -> Row:
    ones = np.ones((1, length), np.int64)
    return {INPUT_IDS: ones, "attention_mask": ones}


def _long_row(rows: Sequence[Row], length: int) -> Row:
    """Return a text of that many tokens, made of the others' one after the other."""
    found = {}
    for name in rows[0]:
        whole = np.concatenate([row[name] for row in rows], axis=1)
        found[name] = np.tile(whole, -(-length // whole.shape[1]))[:, :length]
    return found


def _ends(
    found: GraphSource, opened: _Opened, rows: Sequence[Row], part: TeacherPart, labels: Sequence[str]
) -> tuple[Ends, tuple[str, ...]]:
    """Return how a graph is wrapped, and notes on its labels."""
    given, config, source = opened.given, config_of(found), found.source
    output, classes = _output(given, rows[0], labels_in(config), source)
    require_one_label(opened.prepared, output, source)
    head = match_head(config, classes, labels, part.labels, source)
    if head.order is None:
        raise RecipeError(
            f"the graph's {classes} labels are not those of the data, and it is not trained",
            where=source,
            hint=f"{head.hint}. Labels of the data: {', '.join(labels[:10])}",
        )
    order = () if head.order == tuple(range(classes)) else head.order
    probabilities = _are_probabilities(given.answers(output, rows))
    return Ends(given.inputs, output, order, probabilities, filled=given.pad_id), head.notes


def _output(given: Given, row: Row, labels: int | None, source: str) -> tuple[str, int]:
    """Return the output that holds the answers, and how many it has of each text."""
    found: Port = answers_of_graph(given.outputs(row), labels, source)
    classes = found.dims[-1] if found.dims else None
    if classes is None:
        raise RecipeError(f"the graph's output {found.told} is no tensor", where=source)
    return found.name, classes


def _are_probabilities(answers: NDArray[np.float64]) -> bool:
    return bool((answers >= 0).all() and np.abs(answers.sum(axis=1) - 1).max() < SUM)


def _shape(
    fitted: Fitted, pieces: int, kept: int, *, classes: int, token_types: bool, pad_id: int
) -> GraphShape:
    table = word_table_of(fitted.model, INPUT_IDS)
    floating = table is not None and table[2] == TensorProto.FLOAT
    return GraphShape(
        vocabulary=pieces,
        longest=kept,
        classes=classes,
        alone=fitted.alone,
        one_text=fitted.one_text,
        token_types=token_types,
        pad_id=pad_id,
        precision=precision_of(fitted.model),
        words=table[0] if table is not None and floating else None,
        parameters=parameters_of(fitted.model),
    )
