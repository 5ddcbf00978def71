"""Whether an artifact still gives the answers of the network that it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from contract.errors import SluiceError
from contract.family import Batching, Precision, Verification
from runtime.api import Encoded
from runtime.onnx_model import OnnxRuntime

if TYPE_CHECKING:
    from compress.models import Network

TEXTS = 200
AGREEMENT_LIMIT: dict[Precision, float] = {
    "fp32": 0.999,
    "fp16": 0.995,
    "int8-dynamic": 0.97,
    "int8-static": 0.97,
}
ERROR_LIMIT: dict[Precision, float] = {"fp32": 1e-3}


def verify_graph(
    path: Path, network: Network, encoded: Encoded, *, precision: Precision, batching: Batching
) -> Verification:
    """Return how far a graph's answers to N texts are from the network's (label agreement, logits).

    A graph that is served singly is also run in batches, to say how many answers batchmates would change.
    """
    from compress.training import predict

    wanted = predict(network, network.examples(encoded))
    found = _answers(path, encoded, batching)
    batched = _answers(path, encoded, "batched") if batching == "single" else None
    return Verification(
        label_agreement=float((found.argmax(1) == wanted.argmax(1)).mean()),
        max_logit_error=float(np.abs(found - wanted).max()),
        n=len(encoded),
        agreement_limit=AGREEMENT_LIMIT[precision],
        batched_agreement=(None if batched is None else float((batched.argmax(1) == found.argmax(1)).mean())),
    )


def require_faithful(verification: Verification, precision: Precision, where: object) -> None:
    """Raise SluiceError when an artifact is not what it was made from, by the limits of its precision."""
    limit = ERROR_LIMIT.get(precision)
    if limit is not None and verification.max_logit_error > limit:
        raise SluiceError(
            f"{where}: its logits differ from its source's by {verification.max_logit_error:.2g}, "
            f"the limit for {precision} is {limit:g}"
        )
    if limit is not None and verification.label_agreement < verification.agreement_limit:
        raise SluiceError(
            f"{where}: it agrees with its source on {verification.label_agreement:.2%} of "
            f"{verification.n} texts, the limit for {precision} is {verification.agreement_limit:.2%}"
        )


def _answers(
    path: Path, encoded: Encoded, batching: Batching
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    runtime = OnnxRuntime(path, encoder=encoded.encoder, threads=1, batching=batching)
    try:
        return runtime.logits(encoded)
    finally:
        runtime.close()
