"""Expressions that several panels ask for, in PromQL."""

from __future__ import annotations

from contract import metrics as m

REQUESTS, DURATION = m.REQUESTS.name, m.REQUEST_DURATION.name
ESCALATIONS, DEGRADED = m.ESCALATIONS.name, m.DEGRADED.name
RATE = "[$__rate_interval]"


def quantile(share: float, selector: str, by: str) -> str:
    """Return the expression of a quantile of the duration histogram."""
    return f"histogram_quantile({share}, sum by ({by}, le) (rate({DURATION}_bucket{selector}{RATE})))"


def ratio(part: str, whole: str) -> str:
    """Return the expression of one rate over another."""
    return f"{part} / {whole}"


def rate_of(name: str, selector: str = "", by: str = "") -> str:
    """Return the summed rate of a counter."""
    grouped = f"sum by ({by}) " if by else "sum"
    return f"{grouped}(rate({name}{selector}{RATE}))"


ANSWERED = rate_of(REQUESTS, '{outcome="ok"}')
CASCADE = rate_of(REQUESTS, '{model="cascade",outcome="ok"}')
CASCADES = rate_of(REQUESTS, '{model="cascade",outcome="ok"}', "family")
FIRST = f"max by (family) ({rate_of(ESCALATIONS, by='family, from_variant')})"
MODEL_SHARE = ratio(rate_of(m.CPU_SECONDS.name, '{variant!="gateway"}'), rate_of(m.CPU_SECONDS.name))
QUIET = f"quantile_over_time(0.05, sum(rate({m.ENERGY.name}[5m]))[1d:5m])"
TOTAL = '{stage="total",model=~"$model"}'
