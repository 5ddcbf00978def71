"""What a gateway says at start of the machine that it finds itself on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from contract.family import Family
from runtime.machine import describe_machine
from runtime.stored import NOT_RUN, other_processor, repeat_answers
from serve.control.remote_check import tell_remotes
from serve.settings.gateway import Settings


def compare_answers(
    folder: Path, family: Family, settings: Settings, progress: Callable[[str], None]
) -> dict[str, str]:
    """Run stored rows of a family here, and tell how the answers compare with those that were measured.

    One line where all is as measured on such a processor; else one for the processor and one per variant.
    Graphs that run on a GPU are not tried: loading them twice can take minutes. Of servers elsewhere only
    whether they are reached is told. Variants without stored rows are told on another processor, and served:
    other answers are possible there, not seen.

    Returns:
        What is other about the answers of variants, in words; nothing of those that answer as measured.
    """
    tell_remotes(folder, family, progress)
    if settings.provider != "cpu":
        progress(f"answers on {settings.provider} are not compared with those that were measured")
        return {}
    told = other_processor(family.machine, describe_machine())
    threads = {name: settings.stage_of(name).threads for name in family.names}
    found = tuple(repeat_answers(folder, family, threads=threads))
    tried = {one.variant for one in found}
    untried = [v.name for v in family.variants if v.runtime not in NOT_RUN and v.name not in tried]
    if told is not None:
        progress(told)
        if untried:
            progress(f"{', '.join(untried)}: no rows are stored to try: certificates are unchecked here")
    for one in found:
        if told is not None or not one.same:
            progress(f"{one.variant}: {one.told}, tried in {one.seconds:.1f} s")
    if found and told is None and all(one.same for one in found):
        seconds = sum(one.seconds for one in found)
        progress(f"{len(found)} variants answer {found[0].n} stored texts as measured ({seconds:.1f} s)")
    return {one.variant: one.told for one in found if not one.same}
