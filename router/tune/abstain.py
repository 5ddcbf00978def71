"""Tuning for a last stage that is a person: what no variant is sure of gets no answer.

The person stands in the sample as one more variant, the last and dearest, whose answers are what counts as
right: the labels, or where there are none what the reference says. So the search, the scores and the tests
are those of every other cascade.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from contract.costs import Cost
from contract.errors import InputError, PredictionsError
from contract.policy import ABSTAIN
from contract.predictions import Predictions
from router.tune.sample import Sample
from router.tune.settings import TuneSettings
from router.tune.targets import Targets

DEARER = 1000.0
"""Times all variants together: where no price is said, an answer is worth more than what any costs."""


@dataclass(frozen=True)
class Person:
    """The last stage of a tuning run that abstains.

    Attributes:
        judge: whose answers count as right where no row has a label; None where labels do.
        usd_per_1k: what the search takes a person's 1,000 answers to cost.
        stated: whether that price was said, and so counts in the figures too.
    """

    judge: str | None
    usd_per_1k: float
    stated: bool

    @property
    def cost(self) -> Cost:
        """What is told of the cost of an abstention."""
        return Cost(self.usd_per_1k if self.stated else 0.0, 0.0, 0.0)

    def beside(self, sample: Sample, part: Predictions) -> Sample:
        """Return the sample of a part with the person as its last variant."""
        said = part.label if self.judge is None else part.variants[self.judge].prediction
        row = np.where(said < 0, sample.classes, said)[None, :]
        sure = np.ones((1, len(sample)))
        confidence = np.concatenate([sample.confidence, sure])
        return replace(
            sample,
            names=(*sample.names, ABSTAIN),
            usd=np.append(sample.usd, self.usd_per_1k),
            answers=np.concatenate([sample.answers, row]),
            right=np.concatenate([sample.right, (row == part.label) & (part.label >= 0)]),
            confidence=confidence,
            basic=np.concatenate([sample.basic, sure]),
        )


def person_of(
    predictions: Predictions,
    costs: Mapping[str, Cost],
    targets: Targets,
    settings: TuneSettings,
    reference: str,
) -> Person | None:
    """Return the person that a policy of these settings leaves texts to; None where it abstains never.

    Raises:
        InputError: a target that says nothing of a policy that abstains, or is lacking.
    """
    if not settings.abstain:
        if settings.abstain_usd_per_1k is not None:
            raise InputError("a price of abstentions was given", hint="add --abstain")
        return None
    if ABSTAIN in predictions.variants:
        raise InputError(
            f"a variant is called {ABSTAIN!r}, which is the name of the last stage that abstains"
        )
    if targets.max_answered_error is None:
        raise InputError(
            "--abstain needs a bound on the errors among what is answered",
            hint="--abstain --max-answered-error 0.05",
        )
    others = (
        targets.max_accuracy_drop, targets.max_disagreement, targets.max_local_disagreement,
        targets.min_accuracy, targets.max_f1_drop, targets.max_escalation_rate,
    )  # fmt: skip
    if any(value is not None for value in others) or targets.max_recall_drop or targets.max_slice_drop:
        raise InputError(
            "with --abstain quality is counted among what is answered: no other target of quality and no "
            "escalation rate goes with it",
            hint="--abstain --max-answered-error 0.05, and budgets of cost, latency or energy",
        )
    if targets.objective == "most_accurate" or settings.gears or settings.score == "deferral":
        raise InputError(
            "--abstain answers as many texts as the target lets it: it goes with the objective cheapest, "
            "without gears, and with any score but deferral"
        )
    price = settings.abstain_usd_per_1k
    if targets.max_usd_per_1k is not None and price is None:
        raise InputError(
            "a budget in USD needs the price of a person's answers", hint="add --abstain-usd-per-1k 200"
        )
    judge = None if (predictions.label >= 0).any() else reference
    everything = sum(cost.usd_per_1k for cost in costs.values())
    return Person(judge, DEARER * (1.0 + everything) if price is None else price, price is not None)


def answering(names: tuple[str, ...], person: Person | None) -> tuple[str, ...]:
    """Return the variants that may answer: without labels the reference, which judges them, is none.

    Raises:
        PredictionsError: none is left.
    """
    if person is None or person.judge is None:
        return names
    found = tuple(name for name in names if name != person.judge)
    if not found:
        raise PredictionsError(
            f"no row has a label, and {person.judge!r} cannot be judged by its own answers",
            hint="add labels, or the predictions of a model to compare with, as --reference",
        )
    return found
