"""A family put in force while the gateway serves: looked at, kept by hash, loaded everywhere, flipped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.errors import FamilyError
from contract.family import Family, read_family
from contract.live import FamilyReference, Revision
from contract.policy import Policy, check_policy_fits, parse_policy, single_variant_policy
from serve.control.families import Families
from serve.control.family_store import FamilyStore
from serve.control.plane import ControlPlane, Examined, ReplicaState


@dataclass(frozen=True)
class Pushed:
    """A family that is in force.

    Attributes:
        revision: which puts it in force.
        replicas: where each is then.
        placed: `inline` or a deployment, by variant.
        said: what was seen on the way, in words.
    """

    revision: Revision
    replicas: list[ReplicaState]
    placed: dict[str, str]
    said: tuple[str, ...]


class FamilyPush:
    """Puts families in force.

    Args:
        plane: commits.
        families: looks at them.
        store: keeps them.
    """

    def __init__(self, plane: ControlPlane, families: Families, store: FamilyStore) -> None:
        self._plane = plane
        self._families = families
        self._store = store
        self._check: Callable[[Family], None] = lambda _: None

    def check_by(self, check: Callable[[Family], None]) -> None:
        """Have every family that is to come refused for which `check`, asked in a thread, raises."""
        self._check = check

    async def push(
        self,
        folder: Path,
        raw_policy: Any = None,
        *,
        new_labels: bool = False,
        reason: str = "family push",
    ) -> Pushed:
        """Put a family in force, with a policy; after any error everything is as it was.

        Args:
            folder: on this node; what is served is the copy that is kept of it.
            raw_policy: the JSON form of the policy that goes with it. None: the one in force where all its
                variants are the same build in both families, else the reference alone.
            new_labels: the label set may be another one.
            reason: for the history.

        Raises:
            FamilyError: a broken rule, a wrong hash, other labels, a variant without a place, other answers
                than were measured.
            PolicyError: the policy does not fit the family, or a replica cannot load it.
            EnvironmentProblem: memory, a library or a provider is missing.
            NotReady: a replica does not answer.
        """
        policy = None if raw_policy is None else parse_policy(raw_policy)
        now = await asyncio.to_thread(self._plane.current)
        before = (await asyncio.to_thread(self._families.examine, now.family)).family
        said: list[str] = []
        family = await asyncio.to_thread(self._look, folder, before, new_labels, said)
        if policy is not None:
            check_policy_fits(policy, family)
        reference = await asyncio.to_thread(self._keep, folder, family, now.family, said)
        told: list[str] = []

        def change(latest: Revision) -> Revision:
            told.clear()
            there = self._families.examine(latest.family).family
            return latest.serving(policy or _policy_for(family, there, latest.policy, told), reference)

        revision, replicas = await self._plane.commit(change, reason)
        remarks = self._families.remarks(family)
        return Pushed(revision, replicas, self._families.place(family), (*said, *told, *remarks))

    async def bring(self, folder: Path) -> FamilyReference:
        """Look at a family and keep it where replicas find it, for a candidate; nothing is put in force.

        Raises as `push`.
        """
        now = await asyncio.to_thread(self._plane.current)
        before = (await asyncio.to_thread(self._families.examine, now.family)).family
        said: list[str] = []
        family = await asyncio.to_thread(self._look, folder, before, new_labels=None, said=said)
        return await asyncio.to_thread(self._keep, folder, family, now.family, said)

    def _look(self, folder: Path, before: Family, new_labels: bool | None, said: list[str]) -> Family:
        manifest = read_family(folder, verify=False)
        if manifest.labels != before.labels and not new_labels:
            raise FamilyError(
                f"its labels are {_short(manifest.labels)}, those that clients get now are "
                f"{_short(before.labels)}",
                where=folder,
                hint="a candidate needs the labels that clients get now"
                if new_labels is None
                else "--new-labels, if clients can read them",
            )
        found = self._families.examine_folder(folder, said.append, before)
        check_answers(folder, found)
        self._check(found.family)
        return found.family

    def _keep(
        self, folder: Path, family: Family, in_force: FamilyReference, said: list[str]
    ) -> FamilyReference:
        """Keep the family, and the one in force for a way back, under their hashes."""
        before = self._families.examine(in_force).family
        try:
            self._store.put(self._families.locate(in_force), before)
        except FamilyError as problem:
            said.append(f"there will be no way back to the family in force, whose files are gone: {problem}")
        finally:
            self._store.let_go(in_force.sha256)
        return self._store.put(folder, family)


def check_answers(folder: Path, found: Examined) -> None:
    """Raise FamilyError where a family gives other answers on this machine than its predictions hold."""
    if found.otherwise:
        told = "; ".join(f"{name} {words}" for name, words in found.otherwise.items())
        raise FamilyError(
            f"its variants do not give the answers on this machine that its predictions hold: {told}",
            where=folder,
            hint="measure it on such a machine: sluice compress RECIPE --out FAMILY",
        )


def _policy_for(family: Family, before: Family, policy: Policy, said: list[str]) -> Policy:
    names = {*policy.variants, policy.reference}
    other = sorted(
        name for name in names if name not in family.names or family.build(name) != before.build(name)
    )
    if not other:
        said.append(f"the policy in force, {policy.version[:12]}, stays: its variants are the same")
        return policy
    said.append(
        f"the policy in force, {policy.version[:12]}, is about other builds of {', '.join(other)}: "
        f"{family.teacher} answers everything until a policy is pushed"
    )
    return single_variant_policy(family.teacher)


def _short(labels: tuple[str, ...]) -> str:
    shown = ", ".join(labels[:5])
    return f"{shown} and {len(labels) - 5} more" if len(labels) > 5 else shown
