"""What a family holds of a variant behind HTTP: its record, and the encoding that passes texts on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from contract.errors import FamilyError
from contract.family import EncoderSpec
from contract.files import read_json, sha256_of_json
from contract.remote import RemoteModel, parse_remote
from runtime.api import EXAMPLE_TEXT, Encoded

TEXTS = "texts"
REMOTE_SHA256 = sha256_of_json({"encoder": "remote", "revision": 1})
REMOTE_ENCODER = EncoderSpec(kind="remote", sha256=REMOTE_SHA256)


class RemoteEncoder:
    """Passes the texts on; its unit of length is the character."""

    example = EXAMPLE_TEXT

    @property
    def sha256(self) -> str:
        """Identity of the encoding."""
        return REMOTE_SHA256

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Return the texts as an array of objects [N]."""
        rows = np.empty(len(texts), dtype=object)
        rows[:] = list(texts)
        return Encoded({TEXTS: rows}, np.array([len(text) for text in texts], dtype=np.int64), REMOTE_SHA256)


def read_remote(path: Path) -> RemoteModel:
    """Read the record of a remote variant. Raises FamilyError."""
    return parse_remote(read_json(path, error=FamilyError), where=path, error=FamilyError)
