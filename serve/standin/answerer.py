"""A variant that answers with probabilities over the labels that it is offered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from contract.errors import BadRequest
from contract.family import read_family
from contract.probabilities import softmax
from runtime.api import LoadedVariant
from runtime.load import check_family_runs, load_variant


@dataclass(frozen=True)
class Answerer:
    """A loaded variant under a model's name. Thread-safe."""

    name: str
    loaded: LoadedVariant

    @classmethod
    def load(cls, folder: Path, variant: str | None = None, *, threads: int = 1) -> Answerer:
        """Load a variant of a family, by default its teacher. Raises FamilyError, EnvironmentProblem."""
        family = read_family(folder)
        check_family_runs(family)
        return cls(family.name, load_variant(folder, family, variant or family.teacher, threads=threads))

    @property
    def labels(self) -> tuple[str, ...]:
        """Everything that it can answer."""
        return self.loaded.labels

    def probabilities(self, text: str, offered: Sequence[str]) -> list[float]:
        """Return the probabilities of the labels that are offered, renormalised over these.

        A label that the variant does not know has none.

        Raises:
            BadRequest: it knows none of them.
        """
        places = {label: place for place, label in enumerate(self.labels)}
        if not any(label in places for label in offered):
            raise BadRequest(f"this model answers with: {', '.join(self.labels)}; none of these is offered")
        logits = self.loaded.logits([text])
        known = softmax(logits, self.loaded.temperature)[0]
        found = [float(known[places[label]]) if label in places else 0.0 for label in offered]
        total = math.fsum(found)
        if total <= 0:
            return [1 / len(offered)] * len(offered)
        return [p / total for p in found]
