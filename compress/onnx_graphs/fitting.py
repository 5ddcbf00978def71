"""Which form of a given graph answers as it does, among batchmates and padding as they come when served."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from compress.onnx_graphs.adapting import LOGITS, Ends, adapt, freed
from compress.onnx_graphs.given import Given, Row
from compress.onnx_graphs.session import open_session
from contract.errors import RecipeError
from contract.family import Precision, Verification
from contract.probabilities import softmax
from runtime.stored import FULL_PRECISION_LIMIT, LOWERED_LIMIT
from runtime.wordpiece import INPUT_IDS

# Of logits; of those that span more, so much of their span.
CLOSE, CLOSE_SHARE = 1e-3, 1e-4
# What half precision rounds off, and INT8 where arithmetic in another order moves a value across a border.
ROUNDED_SHARE = 0.02
# Of what a gateway's start allows answers to move: from batchmates to others they move so far twice. INT8 may
# move more, as products of other shapes add up in another order, layer by layer: then it is asked alone.
MATES_SHARE = 0.5
AGREEMENT_LIMIT, ROUNDED_AGREEMENT_LIMIT = 0.999, 0.99
# Probabilities below it count as it: half precision has hardly any digits left there.
LEAST_LIKELY = 1e-6
MATES = 8
PADDED = 5


@dataclass(frozen=True)
class Fitted:
    """A given graph as it is served.

    Attributes:
        model: with the ends that are served.
        alone: whether it is asked text by text.
        one_text: whether it cannot be asked otherwise.
        verification: how far its answers to N texts are from those of the graph as it was given, each alone.
        notes: what a person must be told.
    """

    model: ModelProto
    alone: bool
    one_text: bool
    verification: Verification
    notes: tuple[str, ...] = ()


def fit_graph(
    prepared: ModelProto,
    given: Given,
    ends: Ends,
    rows: Sequence[Row],
    *,
    pads: tuple[int, ...],
    most: int,
    precision: Precision,
    rounded: bool,
) -> Fitted:
    """Return the form of a prepared graph that answers N texts as the given one does.

    Declared lengths that mean nothing are freed; where they do, what is missing is padded inside.

    Args:
        prepared: as `prepare` made it.
        given: the same graph before that.
        ends: what it is wrapped in.
        rows: texts, one at least.
        pads: ids that padding may have when it is served.
        most: tokens that a text has at most.
        precision: that it computes in.
        rounded: whether it is in few bits: half precision or whole numbers.

    Probabilities are compared by their logarithms, as logits are.

    Raises:
        RecipeError: when no form answers as the graph does, or its answers are not finite.
    """
    wanted = _wanted(given, ends, rows)
    share = ROUNDED_SHARE if rounded else CLOSE_SHARE
    span = float(np.ptp(wanted))
    close = max(CLOSE, share * span)
    allowed = FULL_PRECISION_LIMIT if precision == "fp32" else LOWERED_LIMIT
    mates = min(close, MATES_SHARE * allowed * span)
    problem = "it has no answer"
    for started, form, note in _forms(prepared, given, ends):
        served = adapt(started, form)
        try:
            asked = _Asked(served)
            found = np.stack([asked(row)[0] for row in rows])
            found = logarithms(softmax(found)) if ends.probabilities else found
        except RecipeError as failed:
            problem = failed.rule
            continue
        # Each session holds the weights once more.
        del asked
        difference = float(np.abs(found - wanted).max())
        problem = f"its answers come out {difference:.2g} apart"
        if not difference <= close:
            continue
        model, alone, one = _with_mates(started, form, rows, mates, pads, most)
        # Activations that are scaled when it runs are scaled over all of a batch.
        alone = alone or precision == "int8-dynamic"
        notes = (note,) if note else ()
        if one:
            notes = (*notes, "it takes one text at a time")
        same = float((found.argmax(1) == wanted.argmax(1)).mean())
        verification = Verification(
            label_agreement=same,
            max_logit_error=difference,
            n=len(rows),
            agreement_limit=ROUNDED_AGREEMENT_LIMIT if rounded else AGREEMENT_LIMIT,
            error_limit=close,
        )
        return Fitted(model, alone, one, verification, notes)
    raise RecipeError(
        f"the graph cannot be put into the form that is served: {problem}",
        where=given.source,
        hint="export it with dynamic axes for batch and length",
    )


def _wanted(given: Given, ends: Ends, rows: Sequence[Row]) -> NDArray[np.float64]:
    """Return the answers [N, C] of the graph as it was given, as logits. Raises RecipeError."""
    wanted = given.answers(ends.output, rows)
    wanted = wanted[:, list(ends.order)] if ends.order else wanted
    unknown = int((~np.isfinite(wanted).all(axis=1)).sum())
    if unknown:
        raise RecipeError(
            f"the graph's answers are not finite for {unknown} of {len(rows)} texts",
            where=given.source,
            hint="half precision overflows in some models: export it in float32",
        )
    return logarithms(wanted) if ends.probabilities else wanted


def _forms(prepared: ModelProto, given: Given, ends: Ends) -> Iterator[tuple[ModelProto, Ends, str]]:
    """Yield the forms to try, the most useful first, with what a person must be told of each."""
    batch, length = given.batch, given.length
    if batch is None and length is None:
        yield prepared, ends, ""
        return
    sizes = f"[{batch or 'any'}, {length or 'any'}]"
    yield freed(prepared), ends, f"declared for {sizes} alone, it takes any batch and length"
    if batch is not None and length is not None:
        yield freed(prepared), replace(ends, batch=batch), f"declared for {sizes} alone, it takes any length"
        padded = f"its length is {length}: shorter texts are padded to it"
        yield freed(prepared), replace(ends, length=length), padded
    whole = replace(ends, batch=batch, length=length)
    yield prepared, whole, f"its size is {sizes}: what is smaller is padded to it"


def _with_mates(
    model: ModelProto,
    ends: Ends,
    rows: Sequence[Row],
    close: float,
    pads: tuple[int, ...],
    most: int,
) -> tuple[ModelProto, bool, bool]:
    """Return the served graph, whether batchmates or padding change answers, and whether they break it."""
    if ends.batch is not None:
        return adapt(model, ends), True, True
    broken = False
    for form in (ends, replace(ends, pad_id=pads[-1])):
        served = adapt(model, form)
        try:
            asked = _Asked(served)
            worst = max(_apart(asked, rows, pad, most) for pad in set(pads))
        except RecipeError:
            broken = True
            continue
        if worst <= close:
            return served, False, False
    return adapt(model, ends), True, broken


def _apart(asked: _Asked, rows: Sequence[Row], pad: int, most: int) -> float:
    """Return how far logits are apart alone and among longer texts, all padded where there is room."""
    order = np.argsort([row[INPUT_IDS].shape[1] for row in rows], kind="stable")
    places = np.linspace(0, len(rows) - 1, min(MATES, len(rows))).round().astype(int)
    some = [rows[int(order[place])] for place in places]
    alone = np.concatenate([asked(row) for row in some])
    return max(
        float(np.abs(asked(_padded(part, pad, most)) - alone[: len(part)]).max())
        for part in (some, some[:-1])
        if part
    )


def _padded(rows: Sequence[Row], pad: int, most: int) -> Row:
    """Return rows [1, T] as one batch, all of them padded where that is not beyond `most`."""
    longest = max(row[INPUT_IDS].shape[1] for row in rows)
    length = max(longest, min(longest + PADDED, most))
    found = {}
    for name in rows[0]:
        whole = np.full((len(rows), length), pad if name == INPUT_IDS else 0, np.int64)
        for number, row in enumerate(rows):
            whole[number, : row[name].shape[1]] = row[name]
        found[name] = whole
    return found


def logarithms(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what probabilities are compared by: their logarithms, as logits have their scale."""
    found: NDArray[np.float64] = np.log(np.maximum(probabilities, LEAST_LIKELY))
    return found


class _Asked:
    """A served graph that is asked for logits."""

    def __init__(self, model: ModelProto) -> None:
        try:
            self._session = open_session(model.SerializeToString())
        except Exception as problem:  # noqa: BLE001 (ONNX Runtime's errors share no public base)
            raise RecipeError(str(problem)) from None

    def __call__(self, row: Row) -> NDArray[np.float64]:
        ids = row[INPUT_IDS]
        feeds = {item.name: row.get(item.name, np.zeros_like(ids)) for item in self._session.get_inputs()}
        try:
            return np.asarray(self._session.run([LOGITS], feeds)[0], dtype=np.float64)
        except Exception as problem:  # noqa: BLE001
            raise RecipeError(str(problem)) from None
