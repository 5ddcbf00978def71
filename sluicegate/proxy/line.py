"""The one line that a proxy's user sees."""

from __future__ import annotations

from sluicegate.proxy.standing import Standing

WORDS = {
    "collecting": "collecting",
    "training": "training",
    "certifying": "certifying",
    "loading": "loading",
    "shadow": "in the shadow",
    "canary": "canary",
    "full": "in force",
}


def line_of(standing: Standing, rows: int, texts: int) -> str:
    """Return phase, rows, share answered here, what was saved today, and the standing of the certificate."""
    today = standing.today
    parts = [WORDS[standing.phase], f"{rows:,} answers collected"]
    if standing.phase == "collecting" and standing.needed_texts:
        parts[1] += f" ({texts:,} of {standing.needed_texts:,} texts)"
    share = today.share_here
    parts.append("nothing asked today" if share is None else f"{share:.1%} answered here today")
    parts.append(f"{money(today.saved_usd)} USD saved today")
    parts.append(standing.certificate or "no certificate yet")
    if standing.problem:
        parts.append(standing.problem)
    return " | ".join(parts)


def money(usd: float) -> str:
    """Return an amount with enough digits to be seen."""
    return f"{usd:,.2f}" if abs(usd) >= 1 or usd == 0 else f"{usd:.3g}"
