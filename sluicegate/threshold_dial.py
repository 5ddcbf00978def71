"""Other thresholds in force on a running gateway for a while, and then what was there before."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from contract.errors import InputError, PolicyError
from contract.policy import Policy, parse_policy
from serve.control.admin_client import push_policy, show_policy

REASON = "threshold sweep"


class ThresholdDial:
    """Turns the threshold of one stage through the admin interface; a context manager that puts it back.

    What it puts in force meanwhile is uncertified, with one threshold for all classes and without gears.

    Args:
        admin_url: of the gateway.
        family: the name it is served under; None: the only one.
        stage: variant of the stage to turn; None: the first.

    Raises:
        InputError: on entering, where the policy has no such threshold, or a trial is under way.
    """

    def __init__(self, admin_url: str, family: str | None = None, stage: str | None = None) -> None:
        self._url, self._family, self._stage = admin_url, family, stage
        self._ours: int | None = None
        self.policy: Policy

    def __enter__(self) -> Self:
        revision = show_policy(self._url, family=self._family)
        self.policy = parse_policy(revision["policy"], where=self._url)
        if revision.get("canary") or revision.get("shadow"):
            raise InputError(
                "a candidate is on trial, which other thresholds would end",
                hint="sluice policy promote, or sluice policy withdraw",
            )
        turnable = [stage.variant for stage in self.policy.stages[:-1]]
        self._stage = self._stage or next(iter(turnable), None)
        if self._stage is None or self._stage not in turnable:
            raise InputError(
                f"the policy in force has no threshold of {self._stage or 'any stage'}",
                hint=f"--stage {' or '.join(turnable)}"
                if turnable
                else "push a policy of two stages or more",
            )
        self._number = int(revision["number"])
        return self

    def turn(self, threshold: float) -> None:
        """Put a threshold in force on every replica. Raises PolicyError where another change came between."""
        self._require_ours()
        stages = tuple(
            stage.model_copy(update={"threshold": threshold, "per_class": {}})
            if stage.variant == self._stage
            else stage
            for stage in self.policy.stages
        )
        other = Policy(
            status="uncertified", reference=self.policy.reference, stages=stages, limits=self.policy.limits
        )
        self._push(other.sealed(), f"{REASON}: {self._stage} at {threshold:g}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ours is not None and self._in_force() == self._ours:
            self._push(self.policy, f"{REASON}: back to revision {self._number}")

    def _push(self, policy: Policy, reason: str) -> None:
        done = push_policy(policy, self._url, reason=reason, family=self._family)
        self._ours = int(done["revision"]["number"])

    def _in_force(self) -> int:
        return int(show_policy(self._url, family=self._family)["number"])

    def _require_ours(self) -> None:
        now, mine = self._in_force(), self._ours or self._number
        if now != mine:
            raise PolicyError(
                f"somebody else changed the policy meanwhile (revision {now}, not {mine}): theirs stands",
                where=self._url,
            )
