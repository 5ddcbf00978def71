"""API keys: how they are made, what is kept of them, and every change of the book that holds them. No I/O.

A key is `sluice_<id>_<secret>`: the id is public and finds the record, the secret has 256 random bits. The
record keeps the SHA-256 of the whole key. A slow hash would add nothing: it protects secrets that can be
guessed, and this one cannot be, while its cost would fall on every request.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from contract.errors import InputError
from contract.records import Frozen, parse_record

Scope = Literal["infer", "admin"]
SCHEMA = 1
MARK = "sluice"
LONGEST_KEY = 128
"""Bytes; longer ones are refused unhashed."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_NOBODY = bytes(32)


def _a_time(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("a time without its zone")
    return text


_Time = Annotated[str, AfterValidator(_a_time)]


class KeyLimits(Frozen):
    """What a key may use; None is no limit. A request of N texts counts as N requests."""

    rate_per_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    burst: float | None = Field(default=None, ge=1, allow_inf_nan=False)
    requests_per_day: int | None = Field(default=None, gt=0)
    usd_per_day: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.burst is not None and self.rate_per_s is None:
            raise ValueError("a burst needs a rate")
        return self

    @property
    def tokens(self) -> float:
        """Size of the bucket: the burst, else what one second brings, and one request at least."""
        return self.burst if self.burst is not None else max(1.0, self.rate_per_s or 1.0)

    @property
    def some(self) -> bool:
        """Whether anything is limited."""
        return self.rate_per_s is not None or self.daily

    @property
    def daily(self) -> bool:
        """Whether there is a daily quota."""
        return self.requests_per_day is not None or self.usd_per_day is not None


class KeyRecord(Frozen):
    """What is kept of a key: everything but the key."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    created_at: _Time
    expires_at: _Time | None = None
    revoked_at: _Time | None = None
    limits: KeyLimits = KeyLimits()

    def holds_at(self, now: datetime) -> bool:
        """Return whether the key is valid at that time."""
        expired = self.expires_at is not None and datetime.fromisoformat(self.expires_at) <= now
        return self.revoked_at is None and not expired

    def shown(self, now: datetime) -> dict[str, Any]:
        """Return what a list of keys shows: no hash, and whether it is valid."""
        value = self.model_dump(mode="json", exclude={"sha256"})
        return {**value, "valid": self.holds_at(now)}


class KeyBook(Frozen):
    """All keys of a gateway at one time, as one numbered document. Revoked keys stay in it, marked."""

    schema_: int = Field(default=SCHEMA, alias="schema")
    number: int = Field(ge=1)
    created_at: str
    reason: str = ""
    keys: tuple[KeyRecord, ...] = ()

    def valid(self, now: datetime, scope: Scope) -> list[KeyRecord]:
        """Return the keys of a scope that are valid at that time."""
        return [key for key in self.keys if scope in key.scopes and key.holds_at(now)]

    @property
    def asks_admins(self) -> bool:
        """Whether there is or was a key for the admin interface: it has asked for one ever since."""
        return any("admin" in key.scopes for key in self.keys)


def parse_book(raw: Any, *, where: object | None = None) -> KeyBook:
    """Return a book from its JSON form. Raises InputError naming file and rule."""
    return parse_record(KeyBook, raw, where=where, newest=SCHEMA)


def mint(name: str, scopes: Sequence[Scope], limits: KeyLimits, now: datetime) -> tuple[str, KeyRecord]:
    """Return a new key, which exists nowhere else, and its record. Raises InputError for a bad name."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name[:80]!r} is no name for a key: up to 63 of A-Z, a-z, 0-9, `.`, `_`, `-`, "
            "a letter or digit first"
        )
    identity = secrets.token_hex(6)
    key = f"{MARK}_{identity}_{secrets.token_urlsafe(32)}"
    record = KeyRecord(
        id=identity,
        name=name,
        scopes=tuple(dict.fromkeys(scopes)),
        sha256=hashlib.sha256(key.encode()).hexdigest(),
        created_at=_iso(now),
        limits=limits,
    )
    return key, record


def id_of(key: bytes) -> str | None:
    """Return the public id in what may be a key."""
    parts = key.split(b"_", 2)
    if len(key) > LONGEST_KEY or len(parts) != 3 or parts[0] != MARK.encode():
        return None
    return parts[1].decode("ascii", "replace")


def matches(key: bytes, digest: bytes | None) -> bool:
    """Return whether a key has that SHA-256, in a time that tells nothing; never where there is none."""
    same = hmac.compare_digest(hashlib.sha256(key).digest(), digest or _NOBODY)
    return same and digest is not None


def created(book: KeyBook | None, record: KeyRecord, now: datetime) -> KeyBook:
    """Return the book with a new key. Raises InputError when a valid key has that name."""
    if book is not None and any(key.name == record.name and key.holds_at(now) for key in book.keys):
        raise InputError(
            f"there is a key named {record.name!r}",
            hint=f"sluice keys rotate {record.name}, or another name",
        )
    return _following(book, (*(book.keys if book else ()), record), f"create {record.name}", now)


def rotated(book: KeyBook | None, name: str, overlap: timedelta, now: datetime) -> tuple[str, KeyBook]:
    """Return a new key of that name and the book in which the old one expires after `overlap`.

    Raises InputError when there is no valid key of that name.
    """
    olds = _valid_of(book, name, now)
    key, record = mint(name, olds[-1].scopes, olds[-1].limits, now)
    until = now + overlap
    kept = tuple(
        old.model_copy(update={"expires_at": _sooner(old.expires_at, until)}) if old in olds else old
        for old in (book.keys if book else ())
    )
    return key, _following(book, (*kept, record), f"rotate {name}", now)


def revoked(book: KeyBook | None, name: str, now: datetime) -> KeyBook:
    """Return the book with every key of that name revoked. Raises InputError when none is valid."""
    olds = _valid_of(book, name, now)
    kept = tuple(
        old.model_copy(update={"revoked_at": _iso(now)}) if old in olds else old
        for old in (book.keys if book else ())
    )
    return _following(book, kept, f"revoke {name}", now)


def made(key: str, book: KeyBook) -> dict[str, Any]:
    """Return a new key, with its record: the only time that it is shown."""
    return {"key": key, **book.keys[-1].shown(datetime.now(UTC))}


def shown(book: KeyBook | None) -> list[dict[str, Any]]:
    """Return the keys as a list shows them."""
    now = datetime.now(UTC)
    return [key.shown(now) for key in (book.keys if book else ())]


def _valid_of(book: KeyBook | None, name: str, now: datetime) -> list[KeyRecord]:
    found = [key for key in (book.keys if book else ()) if key.name == name and key.holds_at(now)]
    if not found:
        names = sorted({key.name for key in (book.keys if book else ()) if key.holds_at(now)})
        listed = f"; there are: {', '.join(names)}" if names else ""
        raise InputError(f"there is no valid key named {name[:80]!r}{listed}", hint="sluice keys list")
    return found


def _sooner(expires_at: str | None, until: datetime) -> str:
    if expires_at is not None and datetime.fromisoformat(expires_at) < until:
        return expires_at
    return _iso(until)


def _following(book: KeyBook | None, keys: tuple[KeyRecord, ...], reason: str, now: datetime) -> KeyBook:
    return KeyBook(
        number=1 if book is None else book.number + 1, created_at=_iso(now), reason=reason, keys=keys
    )


def _iso(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="milliseconds")
