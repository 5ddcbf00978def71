"""Where to stand on a curve of measured points: its knee, and the cheapest point within limits. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contract.run import Summary
from loadtest.estimates import Estimate
from loadtest.search import ERROR_SHARE

Curve = Sequence["Point"]


@dataclass(frozen=True)
class Point:
    """One way to serve, as it was measured.

    Attributes:
        name: for people: the threshold, or the variant.
        model: what was asked: the cascade, or one variant.
        threshold: of the swept stage; None for one variant alone.
        summary: of all repeats together.
        gap: its accuracy less the reference's, over the texts that both were asked; None where unlabelled.
    """

    name: str
    model: str
    threshold: float | None
    summary: Summary
    gap: Estimate | None = None

    @property
    def alone(self) -> bool:
        """Whether it is one variant that answers everything."""
        return self.threshold is None

    @property
    def usd_per_1k(self) -> float | None:
        """Price of 1,000 answers by the CPU time that they took, and by what models behind HTTP charged.

        The price of the machine would be the same for all points, since all are driven at one rate.
        """
        return self.summary.usd_per_1k_by_cpu


@dataclass(frozen=True)
class Wanted:
    """Limits of an operating point.

    Attributes:
        slo_ms: p99 within it, and fewer than 0.1% of requests failed.
        max_accuracy_drop: from the reference, a fraction; None: accuracy is not limited.
        max_usd_per_1k: of `Point.usd_per_1k`; None: not limited.
    """

    slo_ms: float
    max_accuracy_drop: float | None = None
    max_usd_per_1k: float | None = None

    def misses(self, point: Point) -> str | None:
        """Return which limit a point misses, in words; None where it keeps all.

        Drops are held against the limit as measured: the interval beside them says how sure that is.
        """
        s = point.summary
        if not s.valid:
            return f"void: {s.void_reason}"
        if s.errors > ERROR_SHARE * s.n:
            return f"{s.errors} of {s.n} requests failed"
        if s.p99_ms is None or s.p99_ms > self.slo_ms:
            return f"p99 {s.p99_ms or float('inf'):.1f} ms is over {self.slo_ms:g} ms"
        if self.max_accuracy_drop is not None:
            if point.gap is None:
                return "its accuracy is not known"
            if -point.gap.value > self.max_accuracy_drop:
                drop, most = -100 * point.gap.value, 100 * self.max_accuracy_drop
                return f"a drop of {drop:.2f} points is over {most:g}"
        if self.max_usd_per_1k is not None and (point.usd_per_1k or 0.0) > self.max_usd_per_1k:
            return f"{point.usd_per_1k:.3g} USD per 1,000 are over {self.max_usd_per_1k:g}"
        return None


@dataclass(frozen=True)
class Advice:
    """What to serve.

    Attributes:
        point: the cheapest that keeps the limits; None where none does.
        words: that, and why, in one sentence.
        misses: which limit each other point misses, by name.
    """

    point: Point | None
    words: str
    misses: dict[str, str]


def knee(points: Curve) -> Point | None:
    """Return the point of the cascade farthest above the line from the cheapest to the dearest.

    Cost and accuracy are taken in shares of their ranges (Satopaa et al. 2011, "Kneedle"). None where no
    point lies above the line, or fewer than three tell both.
    """
    known = [p for p in points if not p.alone and p.summary.accuracy is not None and p.usd_per_1k is not None]
    known.sort(key=lambda p: p.usd_per_1k or 0.0)
    if len(known) < 3:
        return None
    x = [p.usd_per_1k or 0.0 for p in known]
    y = [p.summary.accuracy or 0.0 for p in known]
    wide, high = x[-1] - x[0], y[-1] - y[0]
    if wide <= 0 or high <= 0:
        return None
    above = [(b - y[0]) / high - (a - x[0]) / wide for a, b in zip(x, y, strict=True)]
    best = max(range(len(known)), key=above.__getitem__)
    return known[best] if above[best] > 1e-9 else None


def advise(points: Curve, wanted: Wanted) -> Advice:
    """Return the cheapest point within limits: where that is one variant alone, routing brings nothing."""
    misses = {p.name: missed for p in points if (missed := wanted.misses(p)) is not None}
    kept = [p for p in points if p.name not in misses]
    priced = [p for p in kept if p.usd_per_1k is not None]
    if not kept:
        return Advice(None, "no point keeps the limits", misses)
    if not priced:
        return Advice(None, "no point has a price: the server tells neither CPU time nor charges", misses)
    best = min(priced, key=lambda p: (p.usd_per_1k or 0.0, p.summary.p99_ms or 0.0))
    price = f"{best.usd_per_1k:.3g} USD per 1,000"
    if best.alone:
        return Advice(best, f"do not route: {best.name} alone keeps the limits at {price}", misses)
    alone = [p for p in priced if p.alone]
    beside = ""
    if alone:
        other = min(alone, key=lambda p: p.usd_per_1k or 0.0)
        beside = f"; the cheapest variant alone that does is {other.name} at {other.usd_per_1k:.3g}"
    return Advice(best, f"a threshold of {best.name} keeps the limits at {price}{beside}", misses)
