"""A recorder that books what answers cost to the keys that asked, beside whoever else is told."""

from __future__ import annotations

from contract.metrics import Outcome
from serve.access.accounts import Accounts
from serve.types.recorder import BatchRecord, Incident, Recorder, RequestRecord


class Charging:
    """Tells the accounts of answers whose key has limits, and the recorder that follows of everything."""

    def __init__(self, accounts: Accounts, following: Recorder) -> None:
        self._accounts = accounts
        self._following = following

    def answered(self, record: RequestRecord) -> None:
        """A request was answered."""
        if record.caller:
            self._accounts.charge(record)
        self._following.answered(record)

    def refused(self, model: str, outcome: Outcome, texts: int) -> None:
        """A request was not answered."""
        self._following.refused(model, outcome, texts)

    def limited(self, key: str, limit: str, texts: int) -> None:
        """A key was beyond one of its limits."""
        self._following.limited(key, limit, texts)

    def batch(self, record: BatchRecord) -> None:
        """A variant ran."""
        self._following.batch(record)

    def incident(self, kind: Incident, stage: str, texts: int = 1) -> None:
        """Tell it on."""
        self._following.incident(kind, stage, texts)
