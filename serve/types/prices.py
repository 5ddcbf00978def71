"""What requests cost: the same sum for the counters that show it and for the quotas that limit it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self

from contract.family import Family


class Prices:
    """USD of one text by each variant that has a price.

    Args:
        usd_per_text: by variant; those without a price are left out.
        reference: the variant that saving is measured against.
    """

    __slots__ = ("_usd", "reference_usd")

    def __init__(self, usd_per_text: Mapping[str, float], reference: str) -> None:
        self._usd = dict(usd_per_text)
        self.reference_usd = self._usd.get(reference)

    @classmethod
    def of_family(cls, family: Family, reference: str) -> Self:
        """Return the prices that the family's manifest states."""
        known = {v.name: v.usd_per_1k / 1000 for v in family.variants if v.usd_per_1k is not None}
        return cls(known, reference)

    def charges(self, runs: Iterable[tuple[str, int]]) -> dict[str, float]:
        """Return the USD of a request by the variant that they were spent on, from (variant, texts) that ran.

        The cost of a request is the sum over the stages that ran: every text by the first, and those handed
        on by the later ones too. Empty where nothing that ran has a price.
        """
        found: dict[str, float] = {}
        for variant, texts in runs:
            usd = self._usd.get(variant)
            if usd is not None:
                found[variant] = found.get(variant, 0.0) + usd * texts
        return found
