"""What collected answers promise: whether they are enough, and what a family would save, with intervals."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from contract.collected import Question
from contract.errors import DataError
from router.tune.savings import Savings, savings
from sluicegate.proxy.line import money
from sluicegate.proxy.moves import enough_texts
from sluicegate.proxy.questions import most_asked
from tables.collected.store import CollectedStore
from tables.collected.training import Counts, count, training_rows

_WARMUP_DAYS = 1 / 24
"""Of less traffic nothing is said of a day."""


@dataclass(frozen=True)
class Prospect:
    """What is known of one question.

    Attributes:
        sha256, question, counts: what was collected.
        needed_texts: distinct texts that make a training worth trying.
        disagreement: of a linear model on held-out texts where it answered; None where none was tried.
        saved: what the linear model alone would save; None where nothing could be certified or tried.
        why: what stands in the way; empty where nothing does.
    """

    sha256: str
    question: Question
    counts: Counts
    needed_texts: int
    disagreement: float | None
    saved: Savings | None
    why: str

    @property
    def enough(self) -> bool:
        """Whether a training is worth trying."""
        return self.counts.kept_texts >= self.needed_texts

    def dump(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "question": {"sha256": self.sha256, **self.question.model_dump(mode="json")},
            "counts": asdict(self.counts),
            "enough": self.enough,
            "needed_texts": self.needed_texts,
            "disagreement": self.disagreement,
            "saved": None if self.saved is None else asdict(self.saved),
            "why": self.why,
        }


def chosen(store: CollectedStore, start: str) -> tuple[str, Question]:
    """Return the question whose sha256 begins so; by default the one most often asked.

    Raises:
        DataError: there is none, or there are several.
    """
    questions = store.questions()
    if not start:
        found = most_asked(store)
        if found is None:
            raise DataError("no choice among texts was collected yet", where=store.folder)
        return found[:2]
    named = [name for name in questions if name.startswith(start)]
    if len(named) != 1:
        raise DataError(
            f"{len(named)} questions begin with {start!r}",
            where=store.folder,
            hint=f"questions: {', '.join(name[:12] for name in questions)}",
        )
    return named[0], questions[named[0]]


def prospect_of(
    folder: Path,
    start: str,
    *,
    max_disagreement: float,
    confidence: float,
    usd_per_1k: float | None,
    seed: int,
) -> Prospect:
    """Return what is known of a question; where enough texts were kept, by the trial of a linear model.

    Raises:
        DataError: nothing was collected, or not of this question.
    """
    from compress.forecast import FEWEST, forecast

    store = CollectedStore.open(folder)
    sha256, question = chosen(store, start)
    counts = count(store, sha256)
    needed = enough_texts(len(question.labels), max_disagreement, confidence)
    price = usd_per_1k if usd_per_1k is not None else counts.usd_per_1k

    def found(why: str, disagreement: float | None = None, saved: Savings | None = None) -> Prospect:
        return Prospect(sha256, question, counts, needed, disagreement, saved, why)

    if not counts.kept_texts:
        return found("no texts are kept, so nothing can learn from them: --keep-texts")
    rows = training_rows(store, sha256)
    if len(rows) < FEWEST or len(set(rows.answers.tolist())) < 2:
        return found("too few texts, or too few different answers, to try anything on")
    tried = forecast(
        rows.texts,
        rows.answers,
        rows.probabilities,
        question.labels,
        max_disagreement=max_disagreement,
        confidence=confidence,
        usd_per_1k=price or 1.0,
        seed=seed,
    )
    if not tried.certified:
        more = (
            "" if tried.needed_n is None else f"; about {4 * tried.needed_n:,} texts might be enough for it"
        )
        return found(f"a linear model alone can answer nothing within {max_disagreement:.1%} yet{more}")
    if price is None:
        return found("the price is not known: --usd-per-1k", tried.disagreement)
    saved = savings(
        tried.answered,
        tried.n,
        usd_elsewhere_per_1k=price,
        usd_here_per_1k=tried.usd_per_1k,
        texts=counts.rows,
        days=counts.days if counts.days >= _WARMUP_DAYS else 0.0,
    )
    return found("", tried.disagreement, saved)


def told(found: Prospect) -> list[str]:
    """Return the lines that say so."""
    counts, question = found.counts, found.question
    asked = question.instructions or question.name or "a choice"
    lines = [
        f"question {found.sha256[:12]}: {asked!r}, {len(question.labels)} labels",
        f"{counts.rows:,} answers to {counts.texts:,} texts, {counts.kept_texts:,} of them kept; "
        f"{counts.contradicted:,} texts got different answers",
        f"enough to compress and tune: {'yes' if found.enough else 'not yet'} "
        f"({counts.kept_texts:,} of {found.needed_texts:,} texts)",
    ]
    saved = found.saved
    if saved is not None:
        low, high = saved.share_interval
        lines.append(
            f"a linear model alone would answer {saved.share:.1%} ({low:.1%} to {high:.1%}) here, and save "
            f"{money(saved.usd_per_1k)} USD per 1,000 "
            f"({money(saved.usd_per_1k_interval[0])} to {money(saved.usd_per_1k_interval[1])})"
        )
    if saved is not None and saved.usd_per_day is not None and saved.usd_per_day_interval is not None:
        low, high = saved.usd_per_day_interval
        lines.append(
            f"at the traffic of these {counts.days:.1f} days: {money(saved.usd_per_day)} USD a day "
            f"({money(low)} to {money(high)})"
        )
    if found.why:
        lines.append(found.why)
    return lines
