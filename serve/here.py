"""What a gateway says at start of the machine that it finds itself on, and what it does not serve there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from contract.errors import EnvironmentProblem
from contract.family import Family
from contract.policy import Policy
from runtime.machine import describe_machine
from runtime.stored import Repeated, other_processor, repeat_answers
from serve.settings import Settings


def compare_answers(
    folder: Path, family: Family, settings: Settings, progress: Callable[[str], None]
) -> tuple[Repeated, ...]:
    """Run stored rows of a family here, and tell how its variants' answers compare with those measured.

    One line where all is as measured on such a processor; else one for the processor and one per variant.
    Graphs that run on a GPU are not tried: loading them twice can take minutes.
    """
    if settings.provider != "cpu":
        progress(f"answers on {settings.provider} are not compared with those that were measured")
        return ()
    told = other_processor(family.machine, describe_machine())
    threads = {name: settings.stage_of(name).threads for name in family.names}
    found = tuple(repeat_answers(folder, family, threads=threads))
    if not found:
        return ()
    if told is not None:
        progress(told)
    for one in found:
        if told is not None or not one.same:
            progress(f"{one.variant}: {one.told}, tried in {one.seconds:.1f} s")
    if told is None and all(one.same for one in found):
        seconds = sum(one.seconds for one in found)
        progress(f"{len(found)} variants answer {found[0].n} stored texts as measured ({seconds:.1f} s)")
    return found


def require_certified_answers(policy: Policy, found: Sequence[Repeated]) -> None:
    """Raise EnvironmentProblem when a certificate is about other answers than this machine gives."""
    if policy.certificate is None or policy.status != "certified":
        return
    stages = {policy.reference, *(stage.variant for stage in policy.stages)}
    other = [one for one in found if one.variant in stages and not one.same]
    if other:
        raise EnvironmentProblem(
            "the policy's certificate is about other answers than this machine gives: "
            + "; ".join(f"{one.variant} {one.told}" for one in other),
            hint="measure and tune here (sluice compress RECIPE --out FAMILY, then sluice tune), or serve a "
            "policy that promises nothing (sluice tune --uncertified)",
        )
