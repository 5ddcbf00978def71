"""What the tests of asking share: a teacher that is served, and texts for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.compress.asking.toy_teacher import ToyTeacher
from tests.support.known_model import known_model


@pytest.fixture(scope="module")
def serving() -> Iterator[tuple[ToyTeacher, str]]:
    """One server for the tests of a module."""
    teacher = ToyTeacher()
    with known_model(teacher) as url:
        yield teacher, url


@pytest.fixture
def teacher(serving: tuple[ToyTeacher, str]) -> ToyTeacher:
    """The server's teacher, as new."""
    found, _ = serving
    found.__init__()  # type: ignore[misc] # as new
    return found


@pytest.fixture
def url(serving: tuple[ToyTeacher, str]) -> str:
    """The server's root address."""
    return serving[1]
