"""What asking comes to before it starts: which answers are there, and what the others may cost and take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.datasets.answer_files import read_answers
from compress.datasets.data import Dataset
from compress.datasets.recorded import Recorded, hash_of
from compress.recipes.recipe import Recipe
from compress.recipes.remote_part import RemotePart
from contract.errors import InputError, RecipeError
from runtime.remote.estimate import Estimate, estimate


@dataclass(frozen=True)
class Outlook:
    """What is known of the answers to the texts of a recipe's data, and what is not.

    Attributes:
        texts: all different texts.
        given: answers from files.
        open: the texts that files do not answer; those that are kept from before are among them.
        cost: of the open texts.
        part: the recipe's.
    """

    texts: tuple[str, ...]
    given: Recorded
    open: tuple[str, ...]
    cost: Estimate
    part: RemotePart

    @property
    def to_ask(self) -> int:
        """How many texts will be asked."""
        return self.cost.texts - self.cost.kept if self.part.ask else 0

    def dump(self) -> dict[str, Any]:
        """Return the figures: counts of texts, USD, and seconds at the rate (null where nothing tells)."""
        return {
            "texts": len(self.texts),
            "given": len(self.texts) - len(self.open),
            "kept": self.cost.kept,
            "to_ask": self.to_ask,
            "usd_likely": self.cost.usd_left if self.part.ask else 0.0,
            "usd_at_most": self.cost.most_usd if self.part.ask else 0.0,
            "spent_usd": self.cost.usd_spent,
            "max_usd": self.part.max_usd,
            "seconds": self.cost.seconds if self.part.ask else 0.0,
        }

    @property
    def in_words(self) -> str:
        """The figures as one sentence."""
        there = [f"{self.cost.kept:,} answers are kept from before"] if self.cost.kept else []
        there += (
            [f"{len(self.texts) - len(self.open):,} are given"] if len(self.open) < len(self.texts) else []
        )
        words = f"{self.to_ask:,} of {len(self.texts):,} texts to ask"
        words += f" ({', '.join(there)})" if there else ""
        if not self.to_ask:
            return words
        about = "" if self.cost.exact else f"about {in_usd(self.cost.usd_left)}, "
        words += f": {about}at most {in_usd(self.cost.most_usd)} USD"
        if self.part.max_usd is not None:
            words += f", {in_usd(self.cost.usd_spent)} of {in_usd(self.part.max_usd)} are spent"
        return words + ("" if self.cost.seconds is None else f"; about {in_time(self.cost.seconds)}")


def outlook_of(recipe: Recipe, data: Dataset) -> Outlook:
    """Return what asking a recipe's remote teacher for the answers to its data comes to; nothing is asked.

    Raises:
        RecipeError: labels of the recipe that are not those of the data.
        DataError: as `read_answers`.
    """
    part, answers = recipe.teacher.remote, recipe.teacher.answers
    assert part is not None
    try:
        part.names(data.labels)
    except InputError as problem:
        raise RecipeError(problem.rule, where="teacher.remote.labels", hint=problem.hint) from None
    given = Recorded(data.labels, {})
    if answers is not None:
        given = read_answers(answers, recipe.data, data.labels, recipe.teacher.labels).recorded
    texts = tuple(dict.fromkeys(data.texts))
    open_texts = tuple(text for text in texts if hash_of(text) not in given.answers)
    cost = estimate(part.served, data.labels, open_texts, Path(part.cache))
    return Outlook(texts, given, open_texts, cost, part)


def in_usd(value: float) -> str:
    """Return a sum in words: cents where there are any, else two digits that count."""
    return f"{value:,.2f}" if value >= 0.995 or not value else f"{value:.2g}"


def in_time(seconds: float) -> str:
    """Return a length of time in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def listed(reasons: Mapping[str, int], *, most: int = 5) -> str:
    """Return reasons with their counts in words, the most frequent first."""
    ranked = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    told = [f"{count:,} {reason}" for reason, count in ranked[:most]]
    rest = sum(count for _, count in ranked[most:])
    return ", ".join([*told, *([f"{rest:,} for other reasons"] if rest else [])])
