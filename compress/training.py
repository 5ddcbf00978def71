"""The training loop that teacher, students and pruned networks share, and batched inference in torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from compress.models import Examples, Network
from compress.parts import Distillation, Training

LossOf = Callable[[Tensor, Tensor], Tensor]
Report = Callable[[float, str], None]

BUCKET_BATCHES = 16
INFERENCE_BATCH = 64
GRADIENT_NORM = 1.0


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


def fit(
    network: Network, examples: Examples, loss_of: LossOf, settings: Training, *, seed: int, report: Report
) -> None:
    """Train in place with AdamW on a one-cycle schedule (Smith and Topin 2018).

    Args:
        network: left in evaluation mode.
        examples: N of them.
        loss_of: logits [B, C] (float32) and row numbers [B] to a scalar loss.
        settings: of this run.
        seed: of order and dropout.
        report: called with the share done and a few words.
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    steps = settings.epochs * -(-len(examples) // settings.batch_size)
    if steps == 0:
        return
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=steps + 1, pct_start=settings.warmup
    )
    network.train()
    done, smooth = 0, 0.0
    for epoch in range(settings.epochs):
        for rows in length_buckets(examples.lengths, settings.batch_size, rng):
            batch = examples.batch(rows)
            with autocast(settings.precision):
                logits = network(*batch)
            loss = loss_of(logits.float(), torch.from_numpy(rows))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            done += 1
            smooth = float(loss.detach()) if done == 1 else 0.9 * smooth + 0.1 * float(loss.detach())
            report(done / steps, f"epoch {epoch + 1} of {settings.epochs}, loss {smooth:.3f}")
    network.eval()


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
    """Return w T^2 KL(teacher/T || student/T) + (1 - w) cross-entropy (Hinton, Vinyals and Dean 2015)."""
    temperature, weight = distillation.temperature, distillation.soft_weight
    wanted = torch.from_numpy(teacher_logits / temperature).log_softmax(dim=-1)
    hard = hard_loss(targets, label_smoothing)

    def loss(logits: Tensor, rows: Tensor) -> Tensor:
        said = (logits / temperature).log_softmax(dim=-1)
        divergence = functional.kl_div(said, wanted[rows], reduction="batchmean", log_target=True)
        return weight * temperature**2 * divergence + (1 - weight) * hard(logits, rows)

    return loss
