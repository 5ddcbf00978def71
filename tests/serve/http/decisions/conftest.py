"""Fixtures of the tests of decision endpoints."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runtime.fake_family import write_fake_family
from tests.serve.http.decisions.odd import odd
from tests.serve.http.decisions.parts import POST, Deciding, deciding
from tests.serve.parts import FakeFolder

__all__ = ["odd"]

SETTINGS = {"models": {"cascade": {"yes_label": "spam"}}, "questions": {"junk": {"model": "cascade"}}}


@pytest.fixture(scope="module")
def post_folder(tmp_path_factory: pytest.TempPathFactory) -> FakeFolder:
    """A family that knows ham from spam."""
    folder = tmp_path_factory.mktemp("post")
    return FakeFolder(folder, write_fake_family(folder, labels=POST, delay_ms=0.0, rows=60))


@pytest.fixture(scope="module")
def above(post_folder: FakeFolder) -> Iterator[Deciding]:
    """A gateway that knows ham from spam."""
    with deciding(post_folder, settings=SETTINGS) as running:
        yield running
