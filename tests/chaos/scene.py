"""What every case of harm needs: a gateway, what makes the load, and where is kept what comes of it."""

from __future__ import annotations

from dataclasses import dataclass

from loadtest.generator import Generator
from tests.chaos.house import House
from tests.chaos.load import NO_HARM, Harm, Load, Tally, offer
from tests.chaos.record import Record


@dataclass(frozen=True)
class Scene:
    """A gateway to do harm to under load.

    Attributes:
        is_whole: whether every case is asked for, at its full length.
    """

    house: House
    generator: Generator
    record: Record
    is_whole: bool

    def offer(self, load: Load, harm: Harm = NO_HARM, *, counted: bool = False) -> Tally:
        """Offer a load to the gateway; see `load.offer`."""
        return offer(self.generator, self.house.url, load, harm, counted=counted)
