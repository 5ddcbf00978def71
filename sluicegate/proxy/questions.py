"""Which question a proxy learns: the one asked most, of those that can be learnt."""

from __future__ import annotations

from collections import Counter

from contract.collected import Question
from tables.collected.store import CollectedStore
from tables.collected.training import Counts, count, not_learnable

LATELY = 500
"""Newest answers, among which a question that is still asked must be."""


def most_asked(
    store: CollectedStore, sha256: str = "", *, lately: bool = False
) -> tuple[str, Question, Counts] | None:
    """Return the question of that hash, or the one with the most answers that can be learnt.

    Args:
        store: that holds them.
        sha256: of the question that is meant; empty: the one most asked. None where there is none yet.
        lately: count the newest answers alone.
    """
    if sha256:
        return sha256, store.question(sha256), count(store, sha256)
    questions = store.questions()
    asked = (
        asked_lately(store) if lately else Counter(store.rows(columns=["question"])["question"].to_pylist())
    )
    able = [name for name, one in questions.items() if not not_learnable(one)]
    if not able:
        return None
    best = max(able, key=lambda name: asked[name])
    return best, questions[best], count(store, best)


def asked_lately(store: CollectedStore) -> Counter[str]:
    """Return how often each question is among the newest answers."""
    rows = store.rows(columns=["at_s", "question"]).sort_by([("at_s", "descending")])
    return Counter(rows["question"][:LATELY].to_pylist())


def why_none(store: CollectedStore) -> str:
    """Return why no question can be learnt; empty where none was asked."""
    return next((why for one in store.questions().values() if (why := not_learnable(one))), "")
