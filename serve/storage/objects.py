"""Where state is kept that every node sees: bytes under keys, on a shared folder or in an object store."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Protocol

from contract.files import atomic_path, sha256_of_file
from serve.settings.gateway import S3


class StoreUnreachable(OSError):
    """The store does not answer, or refuses us: nothing is known of what it holds."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.strerror = words  # logs show these words of an OSError, and no others


class Objects(Protocol):
    """Bytes under keys such as `revisions/00000001.json`; folders are what slashes make of them.

    Every method raises StoreUnreachable, or another OSError, when the store cannot be asked.
    """

    def where(self, key: str) -> str:
        """Return the key's place in words, for messages."""
        ...

    def read(self, key: str) -> bytes:
        """Return what the key holds. Raises FileNotFoundError when it holds nothing."""
        ...

    def create(self, key: str, data: bytes, *, private: bool = False) -> None:
        """Write a key for the first time, complete or not at all. Raises FileExistsError when it is there.

        What is private is for the owner alone to read, where a store has owners.
        """
        ...

    def keys(self, folder: str, after: str = "") -> list[str]:
        """Return the keys right below a folder in order, only those after `after` where that is given."""
        ...

    def holds(self, key: str) -> bool:
        """Return whether the key is there."""
        ...

    def holds_whole(self, key: str, sha256: str) -> bool:
        """Return whether the key is there with the content of that hash.

        An object store watches over its content itself, and is asked for the key alone.
        """
        ...

    def put(self, key: str, source: Path, *, private: bool = False) -> None:
        """Keep a file's content under a key, complete or not at all; the same content again does no harm.

        What is private is for the owner alone to read, as in `create`.
        """
        ...

    def get(self, key: str, target: Path) -> None:
        """Write what the key holds to a path that is not there yet. Raises FileNotFoundError."""
        ...


class FolderObjects:
    """Objects as files below a folder, on this machine or on a network file system that all nodes mount.

    It asks of the file system what NFS gives too: that `link` is refused where the name is there, and that
    what was written before `fsync` returned is seen under the new name.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def where(self, key: str) -> str:
        """See Objects."""
        return str(self._root / key)

    def read(self, key: str) -> bytes:
        """See Objects."""
        return (self._root / key).read_bytes()

    def create(self, key: str, data: bytes, *, private: bool = False) -> None:
        """See Objects; by `link`, since a rename would replace what another writer put there."""
        target = self._make_folder(key, private=private)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        try:
            opened = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
            with os.fdopen(opened, "wb") as file:
                self._hand_over(temporary)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(temporary, target)
            except FileExistsError:
                # The answer to a link over NFS may be lost and the link asked for again: then it is ours.
                if temporary.stat().st_nlink != 2:
                    raise
        finally:
            temporary.unlink(missing_ok=True)

    def _make_folder(self, key: str, *, private: bool) -> Path:
        """Return the path of a key, whose folder is there."""
        target = self._root / key
        self._root.mkdir(parents=True, exist_ok=True)
        folders = [target.parent, *takewhile(lambda folder: folder != self._root, target.parent.parents)]
        missing = [folder for folder in folders if not folder.exists()]
        with suppress(FileExistsError):
            target.parent.mkdir(mode=0o700 if private else 0o777, parents=True)
            for folder in missing:
                self._hand_over(folder)
        return target

    def _hand_over(self, path: Path) -> None:
        """Give what root made to the owner of the store, who could not read it otherwise."""
        if os.geteuid() == 0:
            owner = self._root.stat()
            with suppress(PermissionError):  # over NFS root may be nobody
                os.chown(path, owner.st_uid, owner.st_gid)

    def keys(self, folder: str, after: str = "") -> list[str]:
        """See Objects."""
        try:
            names = [entry.name for entry in os.scandir(self._root / folder) if entry.is_file()]
        except FileNotFoundError:
            return []
        found = sorted(f"{folder}/{name}" for name in names if not name.startswith("."))
        return [key for key in found if key > after]

    def holds(self, key: str) -> bool:
        """See Objects."""
        return (self._root / key).is_file()

    def holds_whole(self, key: str, sha256: str) -> bool:
        """See Objects."""
        path = self._root / key
        return path.is_file() and sha256_of_file(path) == sha256

    def put(self, key: str, source: Path, *, private: bool = False) -> None:
        """See Objects."""
        with atomic_path(self._make_folder(key, private=private)) as temporary:
            temporary.touch(0o600 if private else 0o666, exist_ok=False)
            self._hand_over(temporary)
            shutil.copyfile(source, temporary)

    def get(self, key: str, target: Path) -> None:
        """See Objects; on the same disk a link, which takes no room."""
        kept = self._root / key
        try:
            os.link(kept, target)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copyfile(kept, target)


def open_objects(place: str) -> Objects:
    """Return the objects at `s3://BUCKET/PREFIX`, else in a folder.

    Raises:
        EnvironmentProblem: an object store is asked for without the library for it, or its environment does
            not say how to reach it.
    """
    if place.startswith(S3):
        from serve.storage.s3 import S3Objects

        return S3Objects(place)
    return FolderObjects(Path(place))
