"""Objects in an S3-compatible store; endpoint and credentials come from the environment (AWS_*)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from contract.errors import EnvironmentProblem
from contract.files import atomic_path
from serve.settings.gateway import S3
from serve.storage.objects import StoreUnreachable

if TYPE_CHECKING:
    from obstore.store import ClientConfig

_CONNECT_S = 2
_ANSWER_S = 5
_FILE_S = 600
_RETRY_S = 5
_RETRIES = 2
_HINT = "AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY say where and as whom"


class S3Objects:
    """Objects below `s3://BUCKET/PREFIX`.

    What is written once is written with `If-None-Match: *`, so of two writers the store itself refuses one.

    Raises:
        EnvironmentProblem: the library is not installed, or it cannot use the environment as it is.
    """

    def __init__(self, place: str) -> None:
        try:
            import obstore
            from obstore.exceptions import AlreadyExistsError, BaseError
            from obstore.store import S3Store
        except ImportError:
            raise EnvironmentProblem(
                f"{place} needs the library of the extra `s3`", hint="pip install 'sluicegate[s3]'"
            ) from None
        bucket, _, prefix = place.removeprefix(S3).partition("/")
        self._place = place.rstrip("/")
        self._client = obstore
        self._taken = AlreadyExistsError
        self._problem = BaseError

        def store(answer_s: int) -> S3Store:
            return S3Store(
                bucket,
                prefix=prefix.strip("/") or None,
                client_options=_client(answer_s),
                retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_RETRY_S)},
            )

        try:
            if not bucket:
                raise ValueError("it names no bucket")
            self._store, self._files = store(_ANSWER_S), store(_FILE_S)
        except (BaseError, ValueError) as problem:
            raise EnvironmentProblem(f"{place} cannot be used: {_first_line(problem)}", hint=_HINT) from None

    def where(self, key: str) -> str:
        """See Objects."""
        return f"{self._place}/{key}"

    def read(self, key: str) -> bytes:
        """See Objects."""
        with self._told(key):
            return bytes(self._client.get(self._store, key).bytes())

    def create(self, key: str, data: bytes, *, private: bool = False) -> None:
        """See Objects; who may read is the bucket's matter."""
        del private
        with self._told(key):
            try:
                self._client.put(self._store, key, data, mode="create", use_multipart=False)
            except FileNotFoundError:
                raise self._no_bucket() from None
            except self._taken:
                # An answer may be lost and the request sent again: then what is there is ours.
                if bytes(self._client.get(self._store, key).bytes()) != data:
                    raise FileExistsError(self.where(key)) from None

    def keys(self, folder: str, after: str = "") -> list[str]:
        """See Objects."""
        with self._told(folder):
            pages = self._client.list(self._store, folder, offset=after or None)
            found = [str(found["path"]) for page in pages for found in page]
        return sorted(key for key in found if key.count("/") == folder.count("/") + 1)

    def holds_whole(self, key: str, sha256: str) -> bool:
        """See Objects."""
        del sha256
        return self.holds(key)

    def holds(self, key: str) -> bool:
        """See Objects."""
        with self._told(key):
            try:
                self._client.head(self._store, key)
            except FileNotFoundError:
                return False
            return True

    def put(self, key: str, source: Path, *, private: bool = False) -> None:  # noqa: ARG002 - no owners here
        """See Objects; in parts where it is large."""
        with self._told(key):
            try:
                self._client.put(self._files, key, source)
            except FileNotFoundError:
                raise self._no_bucket() from None

    def get(self, key: str, target: Path) -> None:
        """See Objects."""
        with self._told(key), atomic_path(target) as temporary, temporary.open("wb") as file:
            for chunk in self._client.get(self._files, key).stream():
                file.write(chunk)

    def _no_bucket(self) -> StoreUnreachable:
        return StoreUnreachable(f"there is no bucket of that name: {self._place}")

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """Turn the library's errors into Python's own, in one line that names the key."""
        try:
            yield
        except FileNotFoundError:
            raise FileNotFoundError(f"there is no {self.where(key)}") from None
        except self._problem as problem:
            if "NoSuchBucket" in str(problem):
                raise self._no_bucket() from None
            raise StoreUnreachable(f"{self.where(key)}: {_first_line(problem)}") from problem


def _client(answer_s: int) -> ClientConfig:
    """A dead store has to be noticed well within the time that a push waits for its replicas."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    return {
        "connect_timeout": f"{_CONNECT_S}s",
        "timeout": f"{answer_s}s",
        "allow_http": endpoint.startswith("http://"),
    }


def _first_line(problem: Exception) -> str:
    return str(problem).partition("\n")[0]
