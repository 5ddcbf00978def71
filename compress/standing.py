"""Which steps of a plan are done: their keys, where each stands, and what one of them needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from compress.code_version import code_version
from compress.steps import KINDS, Step, versions_of
from compress.store import Finished, Store
from contract.errors import RecipeError
from contract.files import sha256_of_json
from contract.machine import Machine

# Instruction sets that decide what `precision: auto` means.
BFLOAT16 = frozenset({"amx_bf16", "avx512_bf16"})
# What the names of a variant's steps add to its own.
ENDS = ("", ".table", ".train", ".train.export", ".export", ".measure")


@dataclass(frozen=True)
class Planned:
    """A step and where it stands: its key once all inputs are done, and its result if it is done itself."""

    step: Step
    key: str | None
    finished: Finished | None


def key_of(step: Step, inputs: Mapping[str, Finished], machine: Machine) -> str:
    """Return the hash of all that decides a step's result: settings, inputs, code, versions, machine."""
    kind = KINDS[step.kind]
    return sha256_of_json(
        {
            "kind": step.kind,
            "config": dict(step.config),
            "outside": dict(step.outside),
            "inputs": {role: finished.digest for role, finished in inputs.items()},
            "code": code_version(kind.code),
            "packages": versions_of(kind.packages),
            "bfloat16": not BFLOAT16.isdisjoint(machine.isa) if kind.computes else None,
            "machine": [machine.cpu, machine.cores, machine.gpu] if kind.machine else None,
        }
    )


def inspect_plan(steps: tuple[Step, ...], store: Store, machine: Machine) -> tuple[Planned, ...]:
    """Return where every step stands; a step whose inputs are not done has no key yet."""
    found: dict[str, Planned] = {}
    for step in steps:
        inputs = {role: found[name].finished for role, name in step.inputs.items()}
        done = {role: finished for role, finished in inputs.items() if finished is not None}
        if len(done) < len(inputs):
            found[step.name] = Planned(step, None, None)
            continue
        key = key_of(step, done, machine)
        found[step.name] = Planned(step, key, store.find(step.name, key))
    return tuple(found.values())


def select(steps: tuple[Step, ...], only: str | None) -> tuple[Step, ...]:
    """Return the steps that `only` needs: a step, or all steps of a variant, with what comes before them.

    The name of a latency part stands for every variant that it makes.

    Raises:
        RecipeError: when there is no such step.
    """
    if only is None:
        return steps
    by_name = {step.name: step for step in steps}
    chain = [step.name for step in steps if step.inputs.get("table") == f"{only}.table"]
    wanted = {name + end for name in (only, *chain) for end in ENDS} & set(by_name)
    if not wanted:
        raise RecipeError(f"there is no step {only!r}", hint=f"one of: {', '.join(by_name)}")
    queue = list(wanted)
    while queue:
        for name in by_name[queue.pop()].inputs.values():
            if name not in wanted:
                wanted.add(name)
                queue.append(name)
    return tuple(step for step in steps if step.name in wanted)
