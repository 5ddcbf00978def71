"""Families by their hash: kept where every node reaches them, fetched into a folder of each node, checked.

What is kept is named by content: a manifest by the family's sha256, a file by its own. So a family that was
rebuilt in its folder does not change under a gateway, and a rollback finds the files that it is about.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from contract.errors import FamilyError
from contract.family import MANIFEST, Artifact, Family, artifacts_of, read_family
from contract.files import canonical_json, check_sha256, inside
from contract.live import FamilyReference
from serve.settings.gateway import S3
from serve.storage.objects import Objects, open_objects

CACHE_BYTES = 20 << 30
_SHA256 = re.compile("[0-9a-f]{64}")


class FamilyUnreachable(FamilyError):
    """The store, or this node's cache, cannot be asked now: nothing is known of what it holds."""


class FamilyStore:
    """Puts families into a store, and fetches them by hash into this node's cache.

    A folder of the cache that this object has given out stays until it is let go of or this process ends;
    beyond the bound the others go, the longest unused first.

    Args:
        objects: where all nodes find them.
        cache: folder of this node; several processes may share it.
        bound_bytes: what the cache holds at most, unless more is in use.
    """

    def __init__(self, objects: Objects, cache: Path, bound_bytes: int = CACHE_BYTES) -> None:
        self._objects = objects
        self._cache = cache
        self._bound_bytes = bound_bytes
        self._held: dict[str, FolderLock] = {}

    def put(self, folder: Path, family: Family) -> FamilyReference:
        """Keep a family, every file checked as it is taken; return how a revision names it.

        The manifest goes last: a family that is there is there whole.

        Raises:
            FamilyError: a file is missing or is not what the manifest says.
        """
        for artifact in artifacts_of(family):
            key = _blob(artifact)
            if not self._objects.holds_whole(key, artifact.sha256):
                source = inside(folder, artifact.path)
                check_sha256(source, artifact.sha256)
                self._objects.put(key, source)
                if not self._objects.holds_whole(key, artifact.sha256):
                    raise FamilyError("it changed while it was kept", where=source, hint="push again")
        with suppress(FileExistsError):
            self._objects.create(_manifest(family.sha256), canonical_json(family.dump()))
        return FamilyReference(name=family.name, sha256=family.sha256, path="")

    def fetch(self, sha256: str) -> Path:
        """Return a folder of this node that holds the family, fetched now if it is not there yet.

        Of several that ask at a time on a node, one fetches and the others wait for it.

        Raises:
            FamilyError: the store lacks it, or a file is not what its name says.
            FamilyUnreachable: the store cannot be asked.
        """
        if _SHA256.fullmatch(sha256) is None:
            raise FamilyError(f"{sha256!r} is no sha256 of a family")
        target = self._cache / sha256
        if sha256 in self._held:
            return target
        self._cache.mkdir(parents=True, exist_ok=True)
        lock = self._use(sha256)
        try:
            lock.share()
            if not _is_here(target, sha256):
                self._bring_once(sha256, target)
            if read_family(target, verify=False).sha256 != sha256:
                raise FamilyError("it is not the family", where=target, hint="remove that folder")
        except OSError as problem:
            lock.release()
            raise FamilyUnreachable(f"family {sha256[:12]}… cannot be fetched: {problem}") from problem
        except BaseException:
            lock.release()
            raise
        os.utime(target)
        self._held[sha256] = lock
        self._make_room()
        return target

    def let_go(self, sha256: str) -> None:
        """Say that this process needs the family's folder no longer; what it has loaded is not concerned."""
        lock = self._held.pop(sha256, None)
        if lock is not None:
            lock.release()

    def locate(self, reference: FamilyReference, *elsewhere: Path) -> Path:
        """Return where this node finds a family: a folder that holds that very build, else fetched by hash.

        Of a folder's files existence and size are looked at: whoever loads one checks its hash. Where nothing
        whole is to be had, a folder that lacks a file still gives the others.

        Args:
            reference: of a revision.
            elsewhere: folders to try before the one that the revision names.
        """
        part: Path | None = None
        named = [Path(reference.path)] if reference.path else []
        for folder in (*elsewhere, *named):
            if folder.parent == self._cache and folder.name == reference.sha256:
                break
            with suppress(FamilyError, OSError):
                family = read_family(folder, verify=False)
                if family.sha256 == reference.sha256:
                    part = part or folder
                    if _is_whole(folder, family):
                        return folder
        try:
            return self.fetch(reference.sha256)
        except FamilyError:
            if part is None:
                raise
            return part

    def _bring_once(self, sha256: str, target: Path) -> None:
        fetching = FolderLock(self._cache / f".{sha256}.fetch")
        try:
            fetching.own()
            if not _is_here(target, sha256):
                self._remove(target)
                self._bring(sha256, target)
        finally:
            fetching.release()

    def _use(self, sha256: str) -> FolderLock:
        return FolderLock(self._cache / f".{sha256}.use")

    def _bring(self, sha256: str, target: Path) -> None:
        """Bring all files beside the place, then move them there in one step; one process at a time."""
        beside = self._cache / f".{sha256}.part"
        shutil.rmtree(beside, ignore_errors=True)  # of a process that was killed meanwhile
        beside.mkdir()
        try:
            try:
                manifest = self._objects.read(_manifest(sha256))
            except FileNotFoundError:
                raise FamilyError(
                    "it is not in the store of families", where=self._objects.where(_manifest(sha256))
                ) from None
            (beside / MANIFEST).write_bytes(manifest)
            family = read_family(beside, verify=False)
            if family.sha256 != sha256:
                raise FamilyError(
                    f"it is family {family.sha256[:12]}…", where=self._objects.where(_manifest(sha256))
                )
            self._make_room(sum(artifact.bytes for artifact in artifacts_of(family)))
            here = self._files_here()
            for artifact in artifacts_of(family):
                path = inside(beside, artifact.path)
                if not path.is_file():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    self._bring_file(artifact, path, here.get(artifact.sha256))
            for path in (*beside.rglob("*"), beside):
                _sync(path)
            beside.rename(target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _bring_file(self, artifact: Artifact, path: Path, here: Path | None) -> None:
        """Take a file from another family of this node where one has it, else from the store; check it."""
        if here is not None:
            with suppress(OSError, FamilyError):
                os.link(here, path)
                check_sha256(path, artifact.sha256)
                return
            path.unlink(missing_ok=True)
        try:
            self._objects.get(_blob(artifact), path)
        except FileNotFoundError:
            raise FamilyError(
                "a file of the family is not in the store", where=self._objects.where(_blob(artifact))
            ) from None
        check_sha256(path, artifact.sha256)

    def _files_here(self) -> dict[str, Path]:
        """Return the files of the families in the cache by hash."""
        return {
            artifact.sha256: inside(folder, artifact.path)
            for folder, family in self._families_here()
            for artifact in artifacts_of(family)
        }

    def _families_here(self) -> list[tuple[Path, Family]]:
        """Return the families in the cache, the longest unused first."""
        found = []
        for manifest in self._cache.glob(f"*/{MANIFEST}"):
            with suppress(OSError, FamilyError):
                folder = manifest.parent
                if not folder.name.startswith("."):
                    found.append((folder.stat().st_mtime, folder, read_family(folder, verify=False)))
        return [(folder, family) for _, folder, family in sorted(found, key=lambda each: each[0])]

    def _remove(self, folder: Path) -> None:
        """Remove a folder in one step, as others see it; what a killed process has left of it goes later."""
        gone = self._cache / f".{folder.name}.gone"
        shutil.rmtree(gone, ignore_errors=True)
        with suppress(FileNotFoundError):
            folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _make_room(self, coming_bytes: int = 0) -> None:
        """Remove families that nobody uses until the cache, and what is to come, are within its bound."""
        for gone in self._cache.glob(".*.gone"):
            shutil.rmtree(gone, ignore_errors=True)
        families = self._families_here()
        sizes = [sum(artifact.bytes for artifact in artifacts_of(family)) for _, family in families]
        beyond = sum(sizes) + coming_bytes - self._bound_bytes
        for (folder, _), size in zip(families, sizes, strict=True):
            if beyond <= 0:
                return
            lock = self._use(folder.name)
            try:
                if lock.own_if_free():
                    self._remove(folder)
                    beyond -= size
            finally:
                lock.release()


class FolderLock:
    """A lock of processes over a folder of the cache: many share it, or one owns it.

    It ends with the process. The file stays, since removing it would let two processes lock two files.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def share(self) -> None:
        """Wait until nobody owns it."""
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def own(self) -> None:
        """Wait until nobody else owns or shares it."""
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def own_if_free(self) -> bool:
        """Own it if nobody uses it now."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Use it no longer."""
        self._file.close()


def open_family_store(place: str, cache: Path | None = None, bound_bytes: int = CACHE_BYTES) -> FamilyStore:
    """Return the families beside the revisions of a state; this node's copies in `cache`.

    Without a cache of its own a node uses the state directory for that too, or its user's folder for caches
    where the state is in an object store. Raises as `open_objects`.
    """
    objects = open_objects(f"{place.rstrip('/')}/store")
    if cache is None:
        cache = _user_cache() if place.startswith(S3) else Path(place) / "families"
    return FamilyStore(objects, cache, bound_bytes)


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sluicegate" / "families"


def _is_here(folder: Path, sha256: str) -> bool:
    """Return whether a folder holds that family whole, as far as names and sizes say it."""
    try:
        family = read_family(folder, verify=False)
        return family.sha256 == sha256 and _is_whole(folder, family)
    except (FamilyError, OSError):
        return False


def _sync(path: Path) -> None:
    """Have a file or folder on the disk: what is moved into its place must outlast a power cut."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _is_whole(folder: Path, family: Family) -> bool:
    """Return whether every file is there in its size. Raises FamilyError, OSError."""
    return all(inside(folder, each.path).stat().st_size == each.bytes for each in artifacts_of(family))


def _blob(artifact: Artifact) -> str:
    return f"blobs/{artifact.sha256}"


def _manifest(sha256: str) -> str:
    return f"families/{sha256}.json"
