"""A recorder that books what answers cost to the keys that asked, beside whoever else is told."""

from __future__ import annotations

from serve.access.accounts import Accounts
from serve.types.recorder import PassingOn, Recorder, RequestRecord


class Charging(PassingOn):
    """Tells the accounts what keys with limits have spent, and the recorder that follows of everything."""

    def __init__(self, accounts: Accounts, following: Recorder) -> None:
        super().__init__(following)
        self._accounts = accounts

    def answered(self, record: RequestRecord) -> None:
        """A request was answered."""
        if record.caller:
            self._accounts.charge(record)
        super().answered(record)

    def spent(self, record: RequestRecord) -> None:
        """A request costs something, and has no answer."""
        if record.caller:
            self._accounts.charge(record)
        super().spent(record)
