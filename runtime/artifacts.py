"""A local store of files by their sha256, so that other nodes fetch exactly what is named."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from contract.errors import FamilyError
from contract.files import atomic_path, check_sha256, sha256_of_file

_SHA256 = re.compile(r"[0-9a-f]{64}")


class ArtifactStore:
    """Files under `root`, each named by its content. Safe for several writers: equal names hold equal bytes.

    Args:
        root: a folder, on this machine or a shared volume; created when something is put.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, source: Path) -> str:
        """Copy a file in and return its sha256; a file that is there already is not written again."""
        digest = sha256_of_file(source)
        target = self._path(digest)
        if not target.is_file():
            with atomic_path(target) as temporary:
                shutil.copyfile(source, temporary)
                check_sha256(temporary, digest)
        return digest

    def get(self, digest: str) -> Path:
        """Return the path of a stored file, its content checked.

        Raises:
            FamilyError: malformed digest, absent file, or content that is not what the name says.
        """
        path = self._path(digest)
        check_sha256(path, digest)
        return path

    def fetch(self, digest: str, target: Path) -> None:
        """Copy a stored file to `target`, atomically and checked. Raises FamilyError."""
        source = self._path(digest)
        if not source.is_file():
            raise FamilyError("no such artifact in the store", where=source)
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
            check_sha256(temporary, digest)

    def verify(self) -> Iterator[str]:
        """Yield the digests of stored files whose content has changed."""
        for path in sorted(self._root.glob("??/*")):
            if _SHA256.fullmatch(path.name) and sha256_of_file(path) != path.name:
                yield path.name

    def __contains__(self, digest: str) -> bool:
        return self._path(digest).is_file()

    def _path(self, digest: str) -> Path:
        if not _SHA256.fullmatch(digest):
            raise FamilyError(f"{digest[:80]!r} is not a sha256", where=self._root)
        return self._root / digest[:2] / digest
