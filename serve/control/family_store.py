"""Families by their hash: kept where every node reaches them, fetched into a folder of each node, checked.

What is kept is named by content: a manifest by the family's sha256, a file by its own. So a family that was
rebuilt in its folder does not change under a gateway, and a rollback finds the files that it is about.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import Protocol

from contract.errors import FamilyError
from contract.family import MANIFEST, Family, artifacts_of, read_family
from contract.files import atomic_path, check_sha256, inside, write_json
from contract.live import FamilyReference


class Blobs(Protocol):
    """Files under keys such as `blobs/SHA256`, written once, on a shared folder or in an object store."""

    def holds(self, key: str) -> bool:
        """Return whether the key is there."""
        ...

    def put(self, key: str, source: Path) -> None:
        """Keep a file's content under a key, complete or not at all; the same content again does no harm."""
        ...

    def get(self, key: str, target: Path) -> None:
        """Write what the key holds to a path that is not there yet. Raises FamilyError when it is absent."""
        ...


class FolderBlobs:
    """Blobs in a folder that every node sees."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def holds(self, key: str) -> bool:
        """See Blobs."""
        return (self._root / key).is_file()

    def put(self, key: str, source: Path) -> None:
        """See Blobs."""
        with atomic_path(self._root / key) as temporary:
            shutil.copyfile(source, temporary)

    def get(self, key: str, target: Path) -> None:
        """See Blobs; on the same disk a link, which takes no room."""
        kept = self._root / key
        if not kept.is_file():
            raise FamilyError("it is not in the store of families", where=kept)
        try:
            os.link(kept, target)
        except OSError:
            shutil.copyfile(kept, target)


class FamilyStore:
    """Puts families into blobs, and fetches them by hash into this node's cache.

    Args:
        blobs: where all nodes find them.
        cache: folder of this node; several processes may share it.
    """

    def __init__(self, blobs: Blobs, cache: Path) -> None:
        self._blobs = blobs
        self._cache = cache

    def put(self, folder: Path, family: Family) -> FamilyReference:
        """Keep a family, every file checked as it is taken; return how a revision names it.

        Raises:
            FamilyError: a file is missing or is not what the manifest says.
        """
        for artifact in artifacts_of(family):
            key = f"blobs/{artifact.sha256}"
            if not self._blobs.holds(key):
                source = inside(folder, artifact.path)
                check_sha256(source, artifact.sha256)
                self._blobs.put(key, source)
        manifest = self._cache / f".{family.sha256}.{secrets.token_hex(4)}.json"
        try:
            write_json(manifest, family.dump())
            self._blobs.put(f"families/{family.sha256}.json", manifest)
        finally:
            manifest.unlink(missing_ok=True)
        return FamilyReference(name=family.name, sha256=family.sha256, path="")

    def fetch(self, sha256: str) -> Path:
        """Return a folder of this node that holds the family, fetched now if it is not there yet.

        Raises:
            FamilyError: the store lacks it, or a file is not what its name says.
        """
        target = self._cache / sha256
        if not (target / MANIFEST).is_file():
            self._bring(sha256, target)
        if read_family(target, verify=False).sha256 != sha256:
            raise FamilyError(f"it is not the family {sha256[:12]}…", where=target, hint="remove that folder")
        return target

    def locate(self, reference: FamilyReference, *elsewhere: Path) -> Path:
        """Return where this node finds a family: a folder that holds that very build, else fetched by hash.

        Args:
            reference: of a revision.
            elsewhere: folders to try before the one that the revision names.
        """
        named = [Path(reference.path)] if reference.path else []
        for folder in (*elsewhere, *named):
            try:
                if read_family(folder, verify=False).sha256 == reference.sha256:
                    return folder
            except FamilyError:
                continue
        return self.fetch(reference.sha256)

    def _bring(self, sha256: str, target: Path) -> None:
        """Bring all files beside the place, then move them there in one step."""
        self._cache.mkdir(parents=True, exist_ok=True)
        beside = self._cache / f".{sha256}.{secrets.token_hex(4)}"
        beside.mkdir()
        try:
            self._blobs.get(f"families/{sha256}.json", beside / MANIFEST)
            for artifact in artifacts_of(read_family(beside, verify=False)):
                path = inside(beside, artifact.path)
                if not path.is_file():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    self._blobs.get(f"blobs/{artifact.sha256}", path)
                    check_sha256(path, artifact.sha256)
            try:
                beside.rename(target)
            except OSError:
                if not (target / MANIFEST).is_file():  # else another process was first
                    raise
        finally:
            shutil.rmtree(beside, ignore_errors=True)
