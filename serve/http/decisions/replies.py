"""Replies to decision requests: the answers in their form, and what only this gateway knows beside them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from serve.http.decisions.call import Call
from serve.types.messages import ClassifyResult
from serve.upstream.client import UPSTREAM
from serve.wire.common import Reply
from serve.wire.decisions.forms import Found
from serve.wire.decisions.matching import Match, Unserved
from serve.wire.decisions.reading import BY_UPSTREAM, doubt, read_off

_ABSTAINED = (b"x-sluice-abstained", b"true")
_OF_UPSTREAM = {"model": UPSTREAM, "variant": UPSTREAM, "certified": False, "reason": BY_UPSTREAM}


def render(call: Call, passed: Found | None) -> Reply:
    """Return the reply once every answer is here.

    Args:
        call: with all results.
        passed: what the upstream answered to the questions that were left, if any were.

    Raises:
        NotReady: a family has changed since it was matched, and what was offered are not its labels any more.
    """
    form = call.form
    answers: list[Any] = []
    told: list[dict[str, Any]] = []
    variants: list[str] = []
    versions: list[str] = []
    gears: list[str] = []
    escalated = abstained = False
    theirs: Iterator[Any] = iter(() if passed is None else passed[0])
    for question, match in zip(call.asked.questions, call.matches, strict=True):
        if isinstance(match, Unserved):
            answers.append(next(theirs))
            variants.append(UPSTREAM)
            told.append(_OF_UPSTREAM)
            continue
        result = call.results[match.model]
        probabilities, chosen = read_off(
            match, result.labels, result.logits[0], result.temperatures[0], question.kind
        )
        if result.abstained and result.abstained[0]:
            abstained = True
            answers.append(form.refusal(question))
        else:
            answers.append(form.answer(question, probabilities, chosen, match.values))
        escalated = escalated or result.escalated[0]
        variants.append(result.variant[0])
        if result.policy_version is not None:
            versions.append(result.policy_version)
        if result.gear:
            gears.append(result.gear)
        told.append(_standing(match, result, chosen == 0 if question.kind == "predicate" else None))
    extra = {"request_id": call.identity.decode(), "answers": told}
    body = form.render(call.asked, answers, None if passed is None else passed[1], extra)
    headers = told_in_headers(variants, versions, gears, escalated=escalated)
    return Reply(body, headers=(*headers, _ABSTAINED) if abstained else headers)


def told_in_headers(
    variants: list[str], versions: list[str], gears: list[str], *, escalated: bool
) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers of a reply; where its answers differ, every value once, in order."""
    headers = [
        (b"x-sluice-variant", ",".join(dict.fromkeys(variants)).encode()),
        (b"x-sluice-escalated", b"true" if escalated else b"false"),
    ]
    if versions:
        headers.append((b"x-sluice-policy", ",".join(dict.fromkeys(versions)).encode()))
    if gears:
        headers.append((b"x-sluice-gear", ",".join(dict.fromkeys(gears)).encode()))
    return tuple(headers)


def _standing(match: Match, result: ClassifyResult, says_yes: bool | None) -> dict[str, Any]:
    why = doubt(match, result, says_yes)
    told: dict[str, Any] = {
        "model": match.model,
        "variant": result.variant[0],
        "escalated": result.escalated[0],
        "degraded": result.degraded[0],
        "policy_version": result.policy_version,
        "certified": why is None,
    }
    if result.abstained:
        told["abstained"] = result.abstained[0]
    if why is not None:
        told["reason"] = why
    return told
