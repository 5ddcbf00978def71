"""A policy with cells in plain words: who answers, what is promised under which mixes, what is assumed."""

from __future__ import annotations

from collections.abc import Mapping

from contract.costs import Cost
from contract.mix import Mix
from contract.policy import Policy
from router.mix.pairs import Pairs

ASSUMED = {
    "class": "texts of one predicted class and score lose what they lost, however many of them come",
    "score": "texts of one score lose what they lost, however many of them come",
    "label": "texts of that kind, and the other texts, stay what they were, however many of each come",
}


def explain_mix(pairs: Pairs, policy: Policy, costs: Mapping[str, Cost]) -> tuple[str, ...]:
    """Return the explanation as lines of plain text."""
    lines = [f"The reference is {pairs.reference!r}: {pairs.why}."]
    if policy.mix is None:
        lines.append(f"No safe threshold: every request goes to {pairs.reference!r}.")
        if policy.needed_n is not None:
            lines.append(
                f"About {policy.needed_n:,} rows drawn like these would do; there were {len(pairs.rows):,}."
            )
        return tuple(lines)
    expected, mix = policy.expected, policy.mix
    lines.append(
        f"{mix.variant!r} answers {1 - (expected.escalation_rate or 0.0):.1%} of requests, "
        f"{pairs.reference!r} the others."
    )
    alone = costs[pairs.reference].usd_per_1k
    if expected.usd_per_1k is not None and alone > 0:
        lines.append(
            f"What it costs: {expected.usd_per_1k:.4g} USD per 1,000 requests, "
            f"{1 - expected.usd_per_1k / alone:.0%} less than {pairs.reference!r} alone ({alone:.4g})."
        )
    lines += _promise(pairs, mix)
    lines.append(f"Assumed: {ASSUMED[mix.by]}.")
    return tuple(lines)


def _promise(pairs: Pairs, mix: Mix) -> list[str]:
    metric, sure = pairs.asked.metric.replace("_", " "), 1 - pairs.level * len(pairs.pairs)
    if mix.by == "label" and mix.most is not None:
        part, rest = mix.cells
        return [
            f"With {sure:.0%} confidence the {metric} stays under {mix.epsilon:.4g} at any share of "
            f"{part.name!r} from 0 to {mix.most:.4g}; it was {part.share:.4g} of {len(pairs.rows):,} rows.",
            f"Of {part.name!r} {part.answered:.1%} are answered by {mix.variant!r} ({part.n:,} rows), of the "
            f"others {rest.answered:.1%}.",
        ]
    accepted = [cell for cell in mix.cells if cell.accepted]
    lines = [
        f"With {sure:.0%} confidence the {metric} stays under {mix.epsilon:.4g} under every mix of cells by "
        f"{mix.by}; under the mix of these {len(pairs.rows):,} rows under {mix.reference:.4g}.",
        f"{len(accepted)} of {len(mix.cells)} cells are answered by {mix.variant!r}; texts of the others, "
        "and of predicted classes that never occurred, escalate.",
    ]
    shown = accepted if len(accepted) <= 12 else accepted[:12]
    lines += [
        f"  {cell.name}: score {cell.low:.4f} and above, {cell.n:,} rows ({cell.share:.1%}), loses at most "
        f"{cell.bound or 0.0:.4f}"
        for cell in shown
    ]
    return lines if shown is accepted else [*lines, f"  and {len(accepted) - len(shown)} more"]
