"""Whether an artifact still gives the answers of the network that it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from compress.graphs.calibration import calibration_rows
from contract.errors import SluiceError
from contract.family import Batching, Precision, Verification
from runtime.api import Encoded
from runtime.onnx_model import OnnxRuntime

if TYPE_CHECKING:
    from compress.datasets.data import Dataset
    from compress.networks.models import Network

TEXTS = 200
_OTHER: dict[Batching, Batching] = {"single": "batched", "batched": "single"}
AGREEMENT_LIMIT: dict[Precision, float] = {
    "fp32": 0.999,
    "fp16": 0.995,
    "int8-dynamic": 0.97,
    "int8-static": 0.97,
    "int8-qdq": 0.96,
}
# Shares of the span of the source's logits; FP32 has an absolute limit instead.
ERROR_SHARE: dict[Precision, float] = {
    "fp16": 0.01,
    "int8-dynamic": 0.25,
    "int8-static": 0.25,
    "int8-qdq": 0.35,
}
FP32_ERROR_LIMIT = 1e-3
# Arithmetic in another order moves a value across a rounding border now and then.
BATCHED_AGREEMENT_LIMIT = 0.98


def verification_texts(data: Dataset, *, seed: int) -> tuple[str, ...]:
    """Return TEXTS validation texts, as many of every label as of any other: files are often sorted by it."""
    validation = data.of("validation")
    return validation.take(calibration_rows(validation, TEXTS, seed=seed)).texts


def verify_graph(
    path: Path,
    network: Network,
    encoded: Encoded,
    *,
    precision: Precision,
    batching: Batching,
    name: str = "the network",
) -> Verification:
    """Return how far a graph's answers to N texts are from the network's (label agreement, logits).

    It is run as it is served, and also the other way, alone or in batches: what that changes is what
    batchmates do to its answers. A graph of one text is run alone.

    Raises:
        SluiceError: naming the variant, when logits of the network or of the graph are not finite.
    """
    from compress.learning.training import predict

    wanted = predict(network, network.examples(encoded))
    require_finite(wanted, name)
    found = _answers(path, encoded, batching)
    other = found if network.one_text else _answers(path, encoded, _OTHER[batching])
    if not (np.isfinite(found).all() and np.isfinite(other).all()):
        raise SluiceError(
            f"{name}: its {precision} graph's logits are not finite; its network's are",
            hint=None if precision == "fp32" else "another `method`",
        )
    share, span = ERROR_SHARE.get(precision), float(wanted.max() - wanted.min())
    return Verification(
        label_agreement=float((found.argmax(1) == wanted.argmax(1)).mean()),
        max_logit_error=float(np.abs(found - wanted).max()),
        n=len(encoded),
        agreement_limit=AGREEMENT_LIMIT[precision],
        error_limit=FP32_ERROR_LIMIT if share is None else share * span,
        batched_agreement=None if network.one_text else float((other.argmax(1) == found.argmax(1)).mean()),
        batched_logit_change=None if network.one_text else float(np.abs(other - found).max()),
    )


def require_faithful(
    verification: Verification, precision: Precision, where: object, *, batching: Batching = "batched"
) -> None:
    """Raise SluiceError when an artifact cannot be what it was made from, or cannot be served as promised.

    An FP32 graph must keep to the limits of its precision. Lower precisions may miss theirs, which then
    fails the variant, not the step; but no graph that is served in batches may let batchmates change answers.
    """
    check = verification
    if precision == "fp32" and check.error_limit is not None and check.max_logit_error > check.error_limit:
        raise SluiceError(
            f"{where}: its logits differ from its source's by {check.max_logit_error:.2g}, "
            f"the limit for {precision} is {check.error_limit:g}"
        )
    if precision == "fp32" and check.label_agreement < check.agreement_limit:
        raise SluiceError(
            f"{where}: it agrees with its source on {check.label_agreement:.2%} of "
            f"{check.n} texts, the limit for {precision} is {check.agreement_limit:.2%}"
        )
    kept = check.batched_agreement
    if batching == "batched" and kept is not None and kept < BATCHED_AGREEMENT_LIMIT:
        raise SluiceError(
            f"{where}: batchmates change {1 - kept:.2%} of its answers, "
            f"{1 - BATCHED_AGREEMENT_LIMIT:.0%} are allowed in a graph that is served in batches"
        )


def of_given(served: Verification, given: Verification) -> Verification:
    """Return the check of a graph that was given: how far it is from that, and what batchmates do to it.

    Args:
        served: of the graph beside itself, so that it tells of batchmates alone.
        given: of the graph beside the one that was given.
    """
    mates = ("batched_agreement", "batched_logit_change")
    return given.model_copy(update={name: getattr(served, name) for name in mates})


def require_finite(logits: NDArray[np.float32], name: str) -> None:
    """Raise SluiceError, naming the network, when one of its logits is not finite."""
    if not np.isfinite(logits).all():
        raise SluiceError(
            f"{name}: its logits are not finite, so its training diverged", hint="a lower learning_rate"
        )


def _answers(
    path: Path, encoded: Encoded, batching: Batching
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    runtime = OnnxRuntime(path, encoder=encoded.encoder, threads=1, batching=batching)
    try:
        return runtime.logits(encoded)
    finally:
        runtime.close()
