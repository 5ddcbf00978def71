"""From a manifest record to the encoder that it describes; equal encodings are shared."""

from __future__ import annotations

import threading
from pathlib import Path
from weakref import WeakValueDictionary

from contract.errors import FamilyError
from contract.family import EncoderSpec
from contract.files import check_sha256, inside
from runtime.api import Encoder
from runtime.fake import FakeEncoder
from runtime.ngrams.encoder import NgramEncoder, ngram_options
from runtime.pixels import PixelEncoder, pixel_options
from runtime.remote.record import RemoteEncoder
from runtime.wordpiece import read_wordpiece

_encoders: WeakValueDictionary[str, Encoder] = WeakValueDictionary()
_encoders_lock = threading.Lock()


def load_encoder(folder: Path, spec: EncoderSpec) -> Encoder:
    """Return the encoder of a manifest record; equal encodings share one object while it is in use.

    Raises:
        FamilyError: when the encoder built from the record has another identity than the record says.
        EnvironmentProblem: the tokenizers or imaging library is missing.
    """
    with _encoders_lock:
        found = _encoders.get(spec.sha256)
        if found is None:
            found = _build(folder, spec)
            if found.sha256 != spec.sha256:
                raise FamilyError(
                    f"the {spec.kind} encoder is {found.sha256[:12]}…, the manifest says "
                    f"{spec.sha256[:12]}…: made by another version or altered",
                    where=folder,
                    hint="build the family again with `sluice compress`",
                )
            _encoders[spec.sha256] = found
    return found


def _build(folder: Path, spec: EncoderSpec) -> Encoder:
    if spec.kind == "wordpiece":
        if spec.artifact is None or spec.max_length is None:
            raise FamilyError("a wordpiece encoder needs a tokenizer file and max_length", where=folder)
        path = inside(folder, spec.artifact.path)
        check_sha256(path, spec.artifact.sha256)
        types = bool(spec.parameters.get("token_types"))
        return read_wordpiece(path, max_length=spec.max_length, token_types=types)
    if spec.kind == "ngrams":
        return NgramEncoder(ngram_options(spec))
    if spec.kind == "pixels":
        return PixelEncoder(pixel_options(spec))
    if spec.kind == "remote":
        return RemoteEncoder()
    return FakeEncoder()
