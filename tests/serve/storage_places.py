"""Where tests keep what every node sees: in a folder, and in an S3-compatible store on loopback."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.support.object_store import BUCKET, object_store


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """A bucket, and the environment in which the store that holds it is found."""
    pytest.importorskip("obstore", reason="the extra `s3` is not installed")
    pytest.importorskip("moto", reason="the extra `dev` is not installed as it is now")
    with object_store("127.0.0.1", free_port()) as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield f"s3://{BUCKET}"


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place that holds nothing yet, of each kind."""
    if request.param == "folder":
        return str(tmp_path / "state")
    found: str = request.getfixturevalue("bucket")
    return f"{found}/{secrets.token_hex(4)}/state"
