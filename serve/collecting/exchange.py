"""From a decision request and its reply, as they were on the wire, to answers that can be kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeGuard

from contract.collected import FALSE, TRUE, Question
from contract.errors import BadRequest
from serve.collecting.collector import Answered, Collector
from serve.settings.limits import RequestLimits
from serve.wire.decisions import asked as wire
from serve.wire.decisions import openai_form

_IMAGE = b'"input_image"'
"""In a request that shows an image; inside of a text its quotes would be escaped."""


def answers_of(
    request: bytes, reply: bytes, limits: RequestLimits, usd_per_1k: float | None, upstream: str = ""
) -> Iterator[Answered]:
    """Yield each answer to a question about a text; refusals and questions about images are left out.

    Args:
        request: body of POST /v1/decisions.
        reply: body of its 200.
        limits: texts beyond them are left out too, since they are never answered here.
        usd_per_1k: price of 1,000 questions; None where it is unknown.
        upstream: address of who answered.

    Raises:
        BadRequest: the two are no such exchange.
    """
    asked = openai_form.parse(request, limits)
    found = openai_form.answers_in(reply, asked.questions)
    if found is None:
        raise BadRequest("the reply does not answer the questions")
    if asked.unread is not None or asked.images or not asked.text:
        return
    usd = None if usd_per_1k is None else usd_per_1k / 1000
    for question, answer in zip(asked.questions, found[0], strict=True):
        if answer.get("type") != question.kind or (read := _READERS[question.kind](question, answer)) is None:
            continue
        kept, said, probabilities = read
        kept = kept.model_copy(update={"model": asked.model})
        yield Answered(kept, asked.text, said, probabilities, asked.model, usd, upstream)


_Read = tuple[Question, str, tuple[float, ...] | None]


def _choice(question: wire.Question, answer: Mapping[str, Any]) -> _Read | None:
    labels = [_label(value) for value in question.values]
    said = answer.get("choice")
    if len(set(labels)) != len(labels) or not isinstance(said, str | bool) or _label(said) not in labels:
        return None
    kept = _kept(question, tuple(sorted(labels)))
    return kept, _label(said), _probabilities(answer, "value", kept.labels)


def _predicate(question: wire.Question, answer: Mapping[str, Any]) -> _Read | None:
    p = answer.get("probability")
    if not _is_share(p):
        return None
    return _kept(question, (FALSE, TRUE)), TRUE if p >= 0.5 else FALSE, (1 - float(p), float(p))


def _score(question: wire.Question, answer: Mapping[str, Any]) -> _Read | None:
    kept = _kept(question, tuple(str(value) for value in question.values))
    probabilities = _probabilities(answer, "label", kept.labels)
    if probabilities is None:
        return None
    best = max(range(len(probabilities)), key=probabilities.__getitem__)
    return kept, kept.labels[best], probabilities


_READERS: dict[str, Callable[[wire.Question, Mapping[str, Any]], _Read | None]] = {
    "choice": _choice,
    "predicate": _predicate,
    "score": _score,
    "other": lambda *_: None,
}


def _kept(question: wire.Question, labels: tuple[str, ...]) -> Question:
    assert question.kind != "other"
    options = question.raw.get("choices" if question.kind == "choice" else "levels") or ()
    key = "value" if question.kind == "choice" else "label"
    described = {_label(one[key]): one["description"] for one in options if one.get("description")}
    return Question(
        kind=question.kind,
        labels=labels,
        instructions=wire.instructions_in(question.raw),
        name=question.name or "",
        descriptions={label: str(words) for label, words in described.items()},
        booleans=tuple(sorted(_label(value) for value in question.values if isinstance(value, bool))),
    )


def _label(value: object) -> str:
    return value if isinstance(value, str) else str(value).lower()


def _probabilities(answer: Mapping[str, Any], key: str, labels: tuple[str, ...]) -> tuple[float, ...] | None:
    """Return the probabilities of all labels, in order; None where they are not all there, or are 0."""
    told = answer.get("probabilities")
    if not isinstance(told, list):
        return None
    found = {_label(one.get(key)): one.get("probability") for one in told if isinstance(one, dict)}
    shares = [found.get(label) for label in labels]
    if not all(_is_share(share) for share in shares):
        return None
    total = sum(float(share) for share in shares if share is not None)
    return tuple(float(share) / total for share in shares if share is not None) if total > 0 else None


def _is_share(value: Any) -> TypeGuard[float]:
    return type(value) in (int, float) and 0 <= value <= 1


def listener_of(
    collector: Collector, limits: RequestLimits, usd_per_1k: float | None, upstream: str = ""
) -> Callable[[bytes, bytes, float], None]:
    """Return what an upstream tells of each request that it answered: both bodies, and the seconds."""

    def listen(request: bytes, reply: bytes, seconds: float) -> None:
        if _IMAGE not in request:
            collector.offer(
                lambda: answers_of(request, reply, limits, usd_per_1k, upstream),
                1000 * seconds,
                size=len(request) + len(reply),
            )

    return listen
