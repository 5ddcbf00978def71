"""The training loop that teacher, students and pruned networks share, and batched inference in torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from compress.networks.models import Examples, Network
from compress.networks.narrow import used_words_only
from compress.recipes.learning_parts import Distillation, Training
from contract.errors import SluiceError

LossOf = Callable[[Tensor, Tensor], Tensor]
Report = Callable[[float, str], None]

BUCKET_BATCHES = 16
INFERENCE_BATCH = 64
GRADIENT_NORM = 1.0
FIRST_COMPETENCE = 0.1
COMPETENT_AFTER = 0.5
PACES = 50
AVERAGED_FROM = 0.75
AVERAGED_EVERY = 4


class Companion(Protocol):
    """Answers in the network's place with a further loss, and may have weights that learn along."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield those weights."""
        ...

    def __call__(self, rows: NDArray[np.int64], batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return the network's logits [B, C] for the batch of some rows, and a scalar loss to add."""
        ...


def length_buckets(
    lengths: NDArray[np.int64], batch_size: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Yield every row once, in random batches whose texts are of like length."""
    order = rng.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), batch_size * BUCKET_BATCHES):
        bucket = order[start : start + batch_size * BUCKET_BATCHES]
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        batches += [bucket[i : i + batch_size] for i in range(0, len(bucket), batch_size)]
    for index in rng.permutation(len(batches)):
        yield batches[index]


def competence(done: float) -> float:
    """Return which share of the texts, the easiest, a learner is given after a share of its steps.

    c(t) = min(1, sqrt(t (1 - c0^2) / T + c0^2)): the square-root pacing of Platanios et al. 2019, equation
    7, from c0 = FIRST_COMPETENCE to all texts at T = COMPETENT_AFTER of the steps.
    """
    first = FIRST_COMPETENCE**2
    return float(min(1.0, (done * (1 - first) / COMPETENT_AFTER + first) ** 0.5))


def paced_batches(
    lengths: NDArray[np.int64],
    order: NDArray[np.int64],
    batch_size: int,
    steps: int,
    rng: np.random.Generator,
) -> Iterator[NDArray[np.int64]]:
    """Yield so many batches, drawn from the share of texts that `competence` allows at each time.

    Args:
        lengths: [N].
        order: [N] rows from the easiest to the hardest.
        batch_size: rows per batch at most.
        steps: batches.
        rng: of the draw.
    """
    done, drawn = 0, max(1, min(BUCKET_BATCHES, steps // PACES))
    while done < steps:
        share = competence(done / steps)
        pool = order[: max(round(share * len(order)), min(batch_size, len(order)))]
        batches = length_buckets(lengths[pool], batch_size, rng)
        for rows in islice(batches, drawn if share < 1 else None):
            if done < steps:
                yield pool[rows]
            done += 1


@cache
def multiplies_bf16() -> bool:
    """Return whether this processor multiplies bfloat16 natively (AMX or AVX-512 BF16)."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def autocast(precision: str) -> torch.autocast:
    """Return the context in which a precision setting computes."""
    wanted = precision == "bf16" or (precision == "auto" and multiplies_bf16())
    return torch.autocast("cpu", torch.bfloat16, enabled=wanted)


@dataclass(frozen=True, eq=False)
class Guide:
    """What leads a training beside its loss.

    Attributes:
        order: [N] rows from the easiest to the hardest, for a curriculum; None: every row alike.
        companion: gives the logits, with a loss that is added.
    """

    order: NDArray[np.int64] | None = None
    companion: Companion | None = None


def fit(
    network: Network,
    examples: Examples,
    loss_of: LossOf,
    settings: Training,
    *,
    seed: int,
    report: Report,
    guide: Guide | None = None,
    name: str = "the network",
) -> None:
    """Train in place with AdamW on a one-cycle schedule (Smith and Topin 2018).

    Args:
        network: left in evaluation mode.
        examples: N of them.
        loss_of: logits [B, C] (float32) and row numbers [B] to a scalar loss.
        settings: of this run; its dropout takes the place of the network's own, and stays.
        seed: of order and dropout.
        report: called with the share done and a few words.
        guide: what leads the training beside the loss, if anything.
        name: of the network, for errors.

    Raises:
        SluiceError: when the loss is not finite.
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    order, companion = (None, None) if guide is None else (guide.order, guide.companion)
    per_epoch = -(-len(examples) // settings.batch_size)
    steps = settings.epochs * per_epoch
    if steps == 0:
        return
    network.set_dropout(settings.dropout)
    with used_words_only(network, examples) as used:
        weights = [*network.parameters(), *(companion.parameters() if companion else ())]
        optimizer = torch.optim.AdamW(
            weights, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, settings.learning_rate, total_steps=steps + 1, pct_start=settings.warmup
        )
        average = _Average(network) if settings.average else None
        network.train()
        smooth = 0.0
        if order is None:
            batches = _epochs(used.lengths, settings, rng)
        else:
            batches = paced_batches(used.lengths, order, settings.batch_size, steps, rng)
        for done, rows in enumerate(batches, start=1):
            batch = used.batch(rows)
            with autocast(settings.precision):
                logits, more = companion(rows, batch) if companion else (network(*batch), None)
            loss = loss_of(logits.float(), torch.from_numpy(rows))
            if more is not None:
                loss = loss + more
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, GRADIENT_NORM)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            if average is not None and done > AVERAGED_FROM * steps and (steps - done) % AVERAGED_EVERY == 0:
                average.take()
            now = float(loss.detach())
            if not math.isfinite(now):
                raise SluiceError(
                    f"{name}: the loss is not finite at step {done} of {steps}", hint="a lower learning_rate"
                )
            smooth = now if done == 1 else 0.9 * smooth + 0.1 * now
            epoch = -(-done // per_epoch)
            report(done / steps, f"epoch {epoch} of {settings.epochs}, loss {smooth:.3f}")
        if average is not None:
            average.put()
    network.eval()


def _epochs(
    lengths: NDArray[np.int64], settings: Training, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    for _ in range(settings.epochs):
        yield from length_buckets(lengths, settings.batch_size, rng)


class _Average:
    """The mean of a network's weights over some moments (Izmailov et al. 2018)."""

    def __init__(self, network: Network) -> None:
        self._live = [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
        self._mean = [tensor.clone() for tensor in self._live]
        self._taken = 0

    def take(self) -> None:
        """Count the weights of this moment."""
        self._taken += 1
        for mean, live in zip(self._mean, self._live, strict=True):
            mean.lerp_(live, 1 / self._taken)

    def put(self) -> None:
        """Give the network the mean."""
        for mean, live in zip(self._mean, self._live, strict=True):
            live.copy_(mean)


def predict(network: Network, examples: Examples, *, precision: str = "fp32") -> NDArray[np.float32]:
    """Return float32 logits [N, C] of a network in evaluation mode."""
    out = np.empty((len(examples), network.classes), dtype=np.float32)
    order = np.argsort(examples.lengths, kind="stable")
    with torch.inference_mode(), autocast(precision):
        for start in range(0, len(order), INFERENCE_BATCH):
            rows = order[start : start + INFERENCE_BATCH]
            out[rows] = network(*examples.batch(rows)).float().numpy()
    return out


def hard_loss(targets: NDArray[np.int64], label_smoothing: float) -> LossOf:
    """Return cross-entropy with the labels of the training rows."""
    labels = torch.from_numpy(targets)

    def loss(logits: Tensor, rows: Tensor) -> Tensor:
        return functional.cross_entropy(logits, labels[rows], label_smoothing=label_smoothing)

    return loss


def soft_loss(
    targets: NDArray[np.int64],
    teacher_logits: NDArray[np.float32],
    distillation: Distillation,
    label_smoothing: float,
) -> LossOf:
    """Return the mean of w T^2 KL(teacher/T || student/T) + (1 - w) cross-entropy (Hinton et al. 2015).

    Args:
        targets: [N] class indices; -1 where a text has no label: there w is 1.
        teacher_logits: [N, C]; a row of NaN where the teacher has no answer: there w is 0.
        distillation: with temperature T and soft weight w.
        label_smoothing: of the cross-entropy.
    """
    temperature = distillation.temperature
    answered = ~np.isnan(teacher_logits[:, 0])
    known = np.where(answered[:, None], teacher_logits, np.float32(0))
    wanted = torch.from_numpy(known / temperature).log_softmax(dim=-1)
    labels = torch.from_numpy(targets)
    weights = torch.where(labels >= 0, distillation.soft_weight, 1.0)
    weights = torch.where(torch.from_numpy(answered), weights, 0.0)

    def loss(logits: Tensor, rows: Tensor) -> Tensor:
        said = (logits / temperature).log_softmax(dim=-1)
        divergence = functional.kl_div(said, wanted[rows], reduction="none", log_target=True).sum(-1)
        hard = functional.cross_entropy(
            logits, labels[rows].clamp_min(0), label_smoothing=label_smoothing, reduction="none"
        )
        soft = weights[rows]
        return (soft * temperature**2 * divergence + (1 - soft) * hard).mean()

    return loss
