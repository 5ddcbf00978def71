"""The gate: from what a request shows to who is asking, on the book of keys in force."""

from __future__ import annotations

import time
from datetime import datetime
from math import inf

from contract.errors import Forbidden, NotReady, Unauthorized
from serve.access.accounts import Accounts
from serve.access.keys import KeyBook, KeyRecord, Scope, id_of, matches
from serve.access.meter import Meter

_SCHEME = b"bearer "


class Caller:
    """A valid key, compiled: who it is, what it may do, until when, and how much."""

    __slots__ = ("digest", "expires_at_s", "meter", "name", "scopes")

    def __init__(self, record: KeyRecord, meter: Meter | None) -> None:
        self.name = record.name
        self.meter = meter
        self.scopes = frozenset(record.scopes)
        self.digest = bytes.fromhex(record.sha256)
        self.expires_at_s = (
            inf if record.expires_at is None else datetime.fromisoformat(record.expires_at).timestamp()
        )


class Gate:
    """Lets in who shows a valid key.

    Args:
        accounts: the meters of keys with limits; without them nothing is metered.

    Attributes:
        keyed: whether a key is asked for at all: from the first key on, and for ever then.
        number: of the book in force; 0 before the first.
    """

    def __init__(self, accounts: Accounts | None = None) -> None:
        self.accounts = accounts
        self.keyed = False
        self.number = 0
        self.book: KeyBook | None = None
        self._callers: dict[str, Caller] = {}
        self._shut = False

    def take(self, book: KeyBook) -> None:
        """Put a newer book in force; an older one changes nothing."""
        if book.number < self.number:
            return
        if self.accounts is not None:
            self.accounts.take(book)
        callers = {
            key.id: Caller(key, None if self.accounts is None else self.accounts.meter(key.name))
            for key in book.keys
            if key.revoked_at is None
        }
        self._callers, self.book, self.number = callers, book, book.number
        self.keyed, self._shut = True, False

    @property
    def is_shut(self) -> bool:
        """Whether nobody is let in."""
        return self._shut

    def shut(self) -> None:
        """Let nobody in: whether there is a newer book, or what it says, cannot be read."""
        self.keyed = self._shut = True

    def open_without_keys(self) -> None:
        """Ask for no key: none was ever made. Once a book is in force this changes nothing."""
        if self.book is None:
            self.keyed = self._shut = False

    def identify(self, authorization: bytes | None, scope: Scope | None) -> Caller:
        """Return who shows that Authorization header.

        Args:
            authorization: the header's value; None where there is none.
            scope: what the key must be for; None where every valid key will do.

        Raises:
            Unauthorized: no key, an unknown, revoked or expired one.
            Forbidden: a valid key of another scope.
            NotReady: the newest keys cannot be read here.
        """
        if self._shut:
            raise NotReady("keys cannot be checked now")
        if authorization is None:
            raise Unauthorized("a key is needed: Authorization: Bearer KEY")
        if authorization[:7].lower() != _SCHEME:
            raise Unauthorized("the Authorization header must be: Bearer KEY")
        shown = authorization[7:].strip()
        identity = id_of(shown)
        if identity is None:
            raise Unauthorized("the key is not valid")
        caller = self._callers.get(identity)
        valid = matches(shown, None if caller is None else caller.digest)
        if caller is None or not valid or caller.expires_at_s <= time.time():
            raise Unauthorized("the key is not valid")
        if scope is not None and scope not in caller.scopes:
            raise Forbidden(f"the key is not for this: it lacks the scope {scope}", scope=scope)
        return caller
