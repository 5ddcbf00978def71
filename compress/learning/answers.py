"""The one place where a teacher is asked: its answers to texts, whatever the teacher is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.datasets.recorded import RECORDED, read_recorded
from compress.encoders import encoder_of
from compress.learning.training import predict
from compress.networks.models import Examples, Network, load_network
from compress.store import Finished
from contract.files import sha256_of_json

KEPT_LESSONS = 2
_recent: dict[str, NDArray[np.float32]] = {}


@dataclass(frozen=True)
class Answers:
    """A teacher's answers to N texts.

    Attributes:
        logits: [N, C]; a row of NaN where it has no answer.
        network: the teacher itself; None where only its answers are known.
        examples: the texts as it reads them; None without a network.
        encoder: hash of the encoder that it reads with; "" without a network.
    """

    logits: NDArray[np.float32]
    network: Network | None = None
    examples: Examples | None = None
    encoder: str = ""


def is_recorded(teacher: Finished) -> bool:
    """Return whether a finished teacher is nothing but answers that were given elsewhere."""
    return RECORDED in teacher.files


def network_of(teacher: Finished) -> Network | None:
    """Return the network of a finished teacher; None where only its answers are known."""
    return None if is_recorded(teacher) else load_network(teacher.folder)


def ask(teacher: Finished, texts: Sequence[str], *, precision: str = "fp32") -> Answers:
    """Return a finished teacher's answers to N texts.

    A network of any kind is run, unless it has answered the same texts a moment ago: learners often share a
    transfer. Recorded answers are looked up by text.

    Args:
        teacher: the step that made it.
        texts: as the data step keeps them.
        precision: of the network's products: `fp32`, `bf16` or `auto`.

    Raises:
        FamilyError: when the step's folder holds neither a network nor answers.
    """
    if is_recorded(teacher):
        return Answers(read_recorded(teacher.file(RECORDED)).of(texts))
    network, encoder = load_network(teacher.folder), encoder_of(teacher)
    examples = network.read(encoder, texts)
    key = sha256_of_json([teacher.digest, teacher.key, str(teacher.folder), list(texts), precision])
    if key not in _recent:
        while len(_recent) >= KEPT_LESSONS:
            _recent.pop(next(iter(_recent)))
        _recent[key] = predict(network, examples, precision=precision)
    return Answers(_recent[key], network, examples, encoder.sha256)
