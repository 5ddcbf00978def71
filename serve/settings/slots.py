"""Where each variant of a family runs."""

from __future__ import annotations

from contract.family import Family
from contract.policy import Policy
from serve.settings.gateway import Settings
from serve.settings.record import Setting


class Slots(Setting):
    """Where each variant runs for the whole life of a gateway; policies come and go within these slots."""

    inline: tuple[str, ...]
    own: tuple[str, ...]
    shelf: tuple[str, ...]


def slots_of(settings: Settings, family: Family, policy: Policy) -> Slots:
    """Return the slot of every variant.

    As placed by the settings; else inline where an earlier stage of the policy, linear, or measured fast
    enough (fakes never count as fast, so that `--fake` has all slots); the last stage in a deployment of
    its own; the others on the shelf.
    """
    stages = [stage.variant for stage in policy.stages]
    found: dict[str, list[str]] = {"inline": [], "own": [], "shelf": []}
    for variant in family.variants:
        placement = settings.stage_of(variant.name).placement
        if placement == "auto":
            measured = variant.latency_at()
            quick = (
                measured is not None
                and measured.p50_ms <= settings.inline_below_ms
                and variant.runtime != "fake"
            )
            if variant.name in stages[:-1] or variant.kind == "linear" or quick:
                placement = "inline"
            else:
                placement = "own" if variant.name in stages else "shelf"
        found[placement].append(variant.name)
    return Slots(inline=tuple(found["inline"]), own=tuple(found["own"]), shelf=tuple(found["shelf"]))
