"""Answers that were paid for, kept in a file by the content of the texts, so that none is asked for twice."""

from __future__ import annotations

import fcntl
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from contract.errors import EnvironmentProblem, InputError
from contract.files import sha256_of_bytes
from contract.remote import RemoteModel

SCHEMA = 1
_DIGITS = 7


@dataclass(frozen=True)
class Kept:
    """One answer.

    Attributes:
        label: class index; None where the model declined.
        probabilities: [C], where they were told.
        usd, seconds: that it took.
        tokens_in, tokens_out: that it counted.
        reason: why there is no label.
    """

    label: int | None
    probabilities: tuple[float, ...] | None
    usd: float
    seconds: float
    tokens_in: int = 0
    tokens_out: int = 0
    reason: str = ""


class KeptAnswers:
    """The answers to one question, a model asked in one way for one label set: a file of lines in a folder.

    The address is a part of the question: another server is another model, unless the record says that it has
    moved (`answers_of`). A line is written once its answer is there, or once money went on a reply that is
    none; one that is torn, by a full disk or a killed process, is left out when it is read. Nothing is
    written before that. Close it after use, or use it in a `with`.

    Args:
        folder: of such files, one for each question; created when the first answer is kept.
        model: whose answers.
        labels: the label set.

    Raises:
        InputError: the file cannot be read.
    """

    def __init__(self, folder: Path, model: RemoteModel, labels: tuple[str, ...]) -> None:
        self.path = folder / f"{model.identity(labels)[:16]}.jsonl"
        self._classes = len(labels)
        self._about = {"schema": SCHEMA, "model": model.model, "url": model.url, "labels": list(labels)}
        self._found: dict[str, Kept] = {}
        self._spent: dict[str, float] = {}
        self._file: BinaryIO | None = None
        try:
            whole = self.path.read_bytes() if self.path.is_file() else b""
        except OSError as problem:
            raise InputError(f"answers cannot be read: {problem}", where=self.path) from None
        for line in whole.splitlines():
            self._read(line)

    def get(self, text: str) -> Kept | None:
        """Return the answer to a text, if there is one."""
        return self._found.get(key_of(text))

    def spent(self, text: str) -> float:
        """Return the USD that went on a text beside its answer: on replies that are none."""
        return self._spent.get(key_of(text), 0.0)

    def open(self) -> None:
        """Hold the file for writing, so that no other process asks for the same meanwhile.

        Raises:
            InputError: it cannot be written.
            EnvironmentProblem: another process holds it.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            before = self.path.read_bytes()
        except BlockingIOError:
            raise EnvironmentProblem(
                f"another process is asking the same question ({self.path})",
                hint="wait for it: what it is told is kept for this one too",
            ) from None
        except OSError as problem:
            raise InputError(f"answers cannot be kept here: {problem}", where=self.path) from None
        if before and not before.endswith(b"\n"):
            self._file.write(b"\n")
        self._spent.clear()
        for line in before.splitlines():
            self._read(line)

    def add(self, text: str, answer: Kept) -> None:
        """Keep an answer. Raises as `open`, which it does at first where nobody has."""
        key, shares = key_of(text), answer.probabilities
        told = {
            "text": key,
            "label": answer.label,
            "probabilities": None if shares is None else [round(share, _DIGITS) for share in shares],
            "usd": answer.usd,
            "seconds": round(answer.seconds, 6),
            "in": answer.tokens_in,
            "out": answer.tokens_out,
        }
        self._write(told | ({"reason": answer.reason} if answer.reason else {}))
        self._found[key] = answer

    def spend(self, text: str, usd: float) -> None:
        """Keep what a reply cost that is no answer. Raises as `open`."""
        key = key_of(text)
        self._write({"text": key, "spent": usd})
        self._spent[key] = self._spent.get(key, 0.0) + usd

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is None:
            self.open()
        assert self._file is not None
        lines = [line] if self._file.tell() else [self._about, line]
        try:
            self._file.write(b"".join(json.dumps(one).encode() + b"\n" for one in lines))
            self._file.flush()
        except OSError as problem:
            raise InputError(f"an answer could not be kept: {problem}", where=self.path) from None

    def _read(self, line: bytes) -> None:
        try:
            raw = json.loads(line)
            if "spent" in raw:
                key, spent = str(raw["text"]), float(raw["spent"])
                if spent > 0 and math.isfinite(spent):
                    self._spent[key] = self._spent.get(key, 0.0) + spent
                return
            shares = raw["probabilities"]
            label = raw["label"]
            found = Kept(
                None if label is None else int(label),
                None if shares is None else tuple(float(share) for share in shares),
                float(raw["usd"]),
                float(raw["seconds"]),
                int(raw["in"]),
                int(raw["out"]),
                str(raw.get("reason", "")),
            )
            key = str(raw["text"])
        except (ValueError, KeyError, TypeError):
            return  # what the file is about, or a line that is torn
        fits = found.probabilities is None or (
            len(found.probabilities) == self._classes and all(map(math.isfinite, found.probabilities))
        )
        if fits and (found.label is None or 0 <= found.label < self._classes):
            self._found[key] = found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def key_of(text: str) -> str:
    """Return what an answer is kept by: the sha256 of the text, which cannot be read from it."""
    return sha256_of_bytes(text.encode("utf-8", "surrogatepass"))
