"""The encoder that a step hands on beside its artifact: its manifest record, and its file if it has one."""

from __future__ import annotations

from pathlib import Path

from compress.store import Finished
from contract.family import EncoderSpec, artifact_of
from contract.files import write_bytes
from runtime.api import Encoder
from runtime.encoders import load_encoder
from runtime.wordpiece import wordpiece_spec

TOKENIZER = "tokenizer.json"


def write_tokenizer(
    folder: Path, tokenizer: bytes, *, max_length: int, token_types: bool = False
) -> EncoderSpec:
    """Write a tokenizer into a step's folder and return the record of encoding with it."""
    write_bytes(folder / TOKENIZER, tokenizer)
    return wordpiece_spec(artifact_of(folder, folder / TOKENIZER), max_length, token_types=token_types)


def encoder_spec(finished: Finished) -> EncoderSpec:
    """Return the record of a finished step's encoder; its file, if any, is in the step's folder."""
    return EncoderSpec.model_validate(finished.result["encoder"])


def encoder_of(finished: Finished) -> Encoder:
    """Return the encoder of a finished step."""
    return load_encoder(finished.folder, encoder_spec(finished))


def hand_on(finished: Finished, folder: Path) -> EncoderSpec:
    """Copy the encoder's file of a finished step into another's folder, and return the record."""
    spec = encoder_spec(finished)
    if spec.artifact is not None:
        write_bytes(folder / spec.artifact.path, finished.file(spec.artifact.path).read_bytes())
    return spec
