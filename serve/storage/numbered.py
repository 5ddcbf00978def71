"""Documents with numbers 1, 2, 3 ...: each written once, by one of the writers that want the number."""

from __future__ import annotations

import json
from typing import Any

from serve.storage.objects import Objects

_SUFFIX = ".json"
_DIGITS = 8


class NumberTaken(Exception):
    """Another writer was first; read the newest document and decide again."""


class NotJson(ValueError):
    """What stands under a number is not JSON; says where."""


class Numbered:
    """JSON documents `00000001.json`, `00000002.json` ... below a folder of a store.

    Every method raises OSError when the store cannot be asked.

    Args:
        objects: the store.
        folder: key of the folder, without a slash at its end.
        private: whether nobody else on a machine may read them.
    """

    def __init__(self, objects: Objects, folder: str, *, private: bool = False) -> None:
        self._objects = objects
        self._folder = folder
        self._private = private

    def where(self, number: int) -> str:
        """Return the place of a number in words."""
        return self._objects.where(self._key(number))

    def read(self, number: int) -> Any:
        """Return a document's JSON value. Raises FileNotFoundError, and NotJson."""
        data = self._objects.read(self._key(number))
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise NotJson("not JSON") from None

    def latest(self) -> int:
        """Return the highest number; 0 before the first."""
        return max(self.numbers(), default=0)

    def newer_than(self, number: int) -> int | None:
        """Return the highest number if it is higher.

        Costs one look at the number that comes next when it is not, which every replica has twice a second:
        an object store charges a tenth of what a list costs.
        """
        if not self._objects.holds(self._key(number + 1)):
            return None
        return max(self.numbers(after=number + 1), default=number + 1)

    def write(self, number: int, value: Any) -> None:
        """Write a document, complete or not at all. Raises NumberTaken."""
        told = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        try:
            self._objects.create(self._key(number), told.encode(), private=self._private)
        except FileExistsError:
            raise NumberTaken from None

    def numbers(self, after: int = 0) -> list[int]:
        """Return the numbers that are there, in order."""
        stems = [
            key.removeprefix(f"{self._folder}/").removesuffix(_SUFFIX)
            for key in self._objects.keys(self._folder, self._key(after) if after else "")
            if key.endswith(_SUFFIX)
        ]
        return sorted(int(stem) for stem in stems if stem.isdigit())

    def _key(self, number: int) -> str:
        return f"{self._folder}/{number:0{_DIGITS}}{_SUFFIX}"
