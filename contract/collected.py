"""What is kept of questions that a model elsewhere answered: a question, an answer to it, and the rules."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from contract.errors import BadRequest
from contract.files import sha256_of_json
from contract.records import Frozen

_parser: Any = importlib.import_module("re._parser")  # has no types
SCHEMA = 1
QuestionKind = Literal["choice", "predicate", "score"]
Source = Literal["passed", "stage"]
"""How an answer came: to a question that was passed on as it was, or from a remote stage of a cascade."""

TRUE, FALSE = "true", "false"
"""The labels of a predicate."""


class Question(Frozen):
    """A closed question, whatever text it is put to.

    Attributes:
        kind: as on the wire.
        labels: what can be answered, as texts: of a choice sorted, since applications offer them in any
            order; of a score in its order.
        instructions: redaction rules applied.
        descriptions: as first seen, redaction rules applied; not all labels have one.
        name: of the question in its request.
        booleans: labels that are no texts on the wire.
        model: that was asked.
        reworded: whether a redaction rule changed it: asked in these words, it would be another question.
    """

    kind: QuestionKind = "choice"
    labels: tuple[str, ...] = Field(min_length=2)
    instructions: str = ""
    name: str = ""
    descriptions: dict[str, str] = Field(default_factory=dict)
    booleans: tuple[str, ...] = ()
    model: str = ""
    reworded: bool = False

    @property
    def sha256(self) -> str:
        """Identity of the question: its labels, and how it is put: what else it asks of them is another."""
        return sha256_of_json([self.kind, list(self.labels), self.instructions])

    def redacted(self, rules: KeepRules) -> Self:
        """Return the question with the rules applied to what was written by people.

        Raises:
            BadRequest: a rule changes a label, which is what the rows and the files' names would tell.
        """
        if any(rules.redacted(label) != label for label in self.labels):
            raise BadRequest("a redaction rule changes a label")
        described = {label: rules.redacted(words) for label, words in self.descriptions.items()}
        told = {"instructions": rules.redacted(self.instructions), "descriptions": described}
        reworded = told != {"instructions": self.instructions, "descriptions": self.descriptions}
        return self.model_copy(update={**told, "name": rules.redacted(self.name), "reworded": reworded})


class Redaction(Frozen):
    """A pattern that is replaced wherever it is found, before anything is written."""

    pattern: str = Field(min_length=1, description="Regular expression of Python")
    instead: str = Field(default="<redacted>", description=r"\1 is the first group")

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        try:
            re.compile(self.pattern)
            re.compile(f"{self.pattern}|").sub(self.instead, "")
        except (re.error, IndexError) as problem:
            raise ValueError(f"not a regular expression, or not what can stand instead: {problem}") from None
        if _repeats_repeats(_parser.parse(self.pattern)):
            raise ValueError("a repetition that ends in a repetition, as (a+)+, may take for ever on a text")
        return self


class KeepRules(Frozen):
    """What is kept, and for how long. Texts only where somebody has said so.

    Attributes:
        texts: whether texts of requests are kept; without them nothing can be trained.
        retention_days: rows older than this are removed.
        redact: applied in this order, to texts and to instructions.
    """

    texts: bool = False
    retention_days: float = Field(default=30.0, gt=0)
    redact: tuple[Redaction, ...] = ()

    def redacted(self, text: str) -> str:
        """Return a text with every rule applied."""
        for rule in self.redact:
            text = re.sub(rule.pattern, rule.instead, text)
        return text


def _repeats_repeats(parsed: Iterable[tuple[Any, Any]]) -> bool:
    """Return whether an unbounded repetition of a parsed pattern has another at the end of its body."""
    for code, told in parsed:
        for inside in _bodies(told):
            if _repeats_repeats(inside) or (_unbounded(code, told) and _ends_in_a_repeat(inside)):
                return True
    return False


def _ends_in_a_repeat(parsed: Iterable[tuple[Any, Any]]) -> bool:
    for code, told in reversed(list(parsed)):
        if _unbounded(code, told) or any(_ends_in_a_repeat(inside) for inside in _bodies(told)):
            return True
        if code not in _REPEATS or told[0]:
            return False
    return False


_REPEATS = (_parser.MAX_REPEAT, _parser.MIN_REPEAT)


def _unbounded(code: Any, told: Any) -> bool:
    return code in _REPEATS and bool(told[1] == _parser.MAXREPEAT)


def _bodies(told: Any) -> Iterator[Any]:
    """Yield the patterns inside what a code of a parsed pattern is told."""
    for one in told if isinstance(told, tuple | list) else ():
        if isinstance(one, _parser.SubPattern):
            yield one
        elif isinstance(one, list):
            yield from (body for body in one if isinstance(body, _parser.SubPattern))


class CollectedRow(Frozen):
    """One answer to one question about one text.

    Attributes:
        id: of the row; a row that is found twice, as after a crash between two steps, counts once.
        at_s: Unix seconds at which the answer came.
        question: sha256 of the question.
        text_sha256: keyed hash of the text, by which equal texts are known without being kept; the key
            stays in the store.
        text: redacted; None where the rules keep none.
        answer: one of the question's labels.
        probabilities: of the question's labels, in its order; None where none came.
        model: as the reply calls it.
        usd: price of the answer, where it is known.
        latency_ms: until the answer came.
        source: how it came.
        upstream: address of the model's server.
    """

    id: str
    at_s: float
    question: str
    text_sha256: str
    text: str | None
    answer: str
    probabilities: tuple[float, ...] | None = None
    model: str = ""
    usd: float | None = None
    latency_ms: float = 0.0
    source: Source = "passed"
    upstream: str = ""
