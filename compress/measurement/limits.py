"""Which tier a variant is in, and which limits it breaks: together they decide whether it passes."""

from __future__ import annotations

from collections.abc import Iterator

from compress.recipes.recipe import Limits
from contract.family import Variant

TIERS = {"critical": 0.005, "high": 0.01, "medium": 0.03}
DIGITS = 9


def judged(variant: Variant, teacher: Variant, limits: Limits) -> Variant:
    """Return a measured variant with its speed-up, its tier, and the limits that it breaks.

    It passes when it breaks none. Where the recipe sets neither a tier nor an accuracy drop, the last tier
    is the limit: a drop of three points fails.
    """
    own, base = variant.latency_at(), teacher.latency_at()
    return variant.model_copy(
        update={
            "speed_up": None if own is None or base is None or not own.p50_ms else base.p50_ms / own.p50_ms,
            "tier": tier_of(_drop(variant.accuracy_delta)),
            "failed_limits": tuple(_failures(variant, limits)),
        }
    )


def tier_of(accuracy_drop: float) -> str | None:
    """Return the best tier whose limit a drop (a fraction) stays below, None beyond all of them."""
    return next((name for name, limit in TIERS.items() if accuracy_drop < limit), None)


def _drop(delta: float | None) -> float:
    """Return a delta as a drop, cleared of what float arithmetic adds: 0.95 - 0.94 is one point."""
    return round(-(delta or 0.0), DIGITS)


def _failures(variant: Variant, limits: Limits) -> Iterator[str]:
    check = variant.verification
    if check is not None and check.label_agreement < check.agreement_limit:
        yield f"agrees with its source on {check.label_agreement:.1%}, limit {check.agreement_limit:.1%}"
    if check is not None and check.error_limit is not None and check.max_logit_error > check.error_limit:
        yield f"logits off by {check.max_logit_error:.2g}, limit {check.error_limit:.2g}"
    drop = _drop(variant.accuracy_delta)
    if limits.accuracy_drop is not None and drop > limits.accuracy_drop:
        yield f"accuracy drop {drop:.4f}, limit {limits.accuracy_drop:g}"
    tier = limits.tier or ("medium" if limits.accuracy_drop is None else None)
    if tier is not None and drop >= TIERS[tier]:
        yield f"accuracy drop {drop:.4f}, the tier {tier} ends below {TIERS[tier]:g}"
    f1_drop = _drop(variant.macro_f1_delta)
    if limits.macro_f1_drop is not None and f1_drop > limits.macro_f1_drop:
        yield f"macro-F1 drop {f1_drop:.4f}, limit {limits.macro_f1_drop:g}"
    for name in dict.fromkeys((*limits.slices, *limits.always)):
        yield from _slice_failures(variant, name, limits)
    measured = variant.latency_at()
    if limits.latency_p99_ms is not None and measured and measured.p99_ms > limits.latency_p99_ms:
        yield f"p99 {measured.p99_ms:.2f} ms, limit {limits.latency_p99_ms:g} ms"


def _slice_failures(variant: Variant, name: str, limits: Limits) -> Iterator[str]:
    found = variant.per_slice.get(name)
    if found is None:
        yield f"the slice {name!r} has no rows in the test split"
        return
    drop, most = _drop(found.accuracy_delta), limits.slices.get(name)
    if most is not None and drop > most:
        yield f"slice {name!r}: accuracy drop {drop:.4f}, limit {most:g}"
    least = limits.always.get(name)
    if least is not None and round(found.accuracy, DIGITS) < least:
        yield f"slice {name!r}: accuracy {found.accuracy:.4f} on {found.n} rows, always at least {least:g}"
