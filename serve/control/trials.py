"""Trials of candidates: begun, watched and ended by revisions that carry the evidence."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from contract.errors import NotReady, PolicyError
from contract.live import Candidate, FamilyReference, Revision, Ruling
from contract.policy import parse_policy
from contract.trial import Auto, TrialKind, Verdict, VerdictRule
from router.live.verdict import judge
from serve.control.evidence import Evidence, Witnesses
from serve.control.plane import Committed, ControlPlane
from serve.settings.record import Setting

log = logging.getLogger(__name__)

_ENDED = {"promote": "promoted", "withdraw": "withdrawn"}
_WHY = {
    "no_worse": "no worse than allowed",
    "worse": "worse than allowed",
    "errors": "too many of its requests fail",
    "slow": "its p99 is over the objective",
    "open": "nothing is proven yet",
}
Ending = Literal["promote", "withdraw"]


class TrialAsked(Setting):
    """Body of PUT /trials/KIND: what goes on trial, and by which rule it is judged."""

    policy: dict[str, Any]
    family: str | None = Field(default=None, description="Absolute path of the candidate's family folder")
    share: float = Field(gt=0, le=1)
    rule: VerdictRule = Field(
        default=VerdictRule(), description="What is not given stays as it is in a trial that goes on"
    )
    auto: Auto | None = Field(default=None, description="null: as it is in a trial that goes on, else off")
    anew: bool = Field(default=False, description="Begin again, without the counts so far")

    @field_validator("family")
    @classmethod
    def _absolute(cls, path: str | None) -> str | None:
        if path is not None and not Path(path).is_absolute():
            raise ValueError(f"{path} is not an absolute path")
        return path


class TrialControl:
    """Begins, watches and ends trials.

    Args:
        plane: commits.
        witnesses: the replicas, which count.
        evidence: where counts are kept.
    """

    def __init__(self, plane: ControlPlane, witnesses: Witnesses, evidence: Evidence) -> None:
        self._plane = plane
        self._witnesses = witnesses
        self._evidence = evidence
        self._seen: Revision | None = None
        plane.rule_by(self._with_rulings)

    async def begin(
        self, kind: TrialKind, asked: TrialAsked, family: FamilyReference | None = None
    ) -> Committed:
        """Put a candidate on trial; the same one again goes on, with its keys, its counts and its rule.

        Args:
            kind: which place; another candidate there is withdrawn.
            asked: the candidate.
            family: its family, where that is not the one in force, or that of the trial that goes on.

        Raises:
            PolicyError: it is in force already, does not fit, or a replica cannot load it; or it is on trial
                by another rule, and `anew` is not asked for. Nothing has changed.
        """
        policy = parse_policy(asked.policy)

        def change(now: Revision) -> Revision:
            before = now.canary if kind == "canary" else now.shadow
            same = before if before is not None and before.policy.version == policy.version else None
            its_family = family or (now.family if same is None else same.family)
            if same is not None and same.family.sha256 == its_family.sha256 and not asked.anew:
                return now.model_copy(update={kind: _goes_on(same, asked)})
            if policy.version == now.policy.version and its_family.sha256 == now.family_sha256:
                raise PolicyError("this policy is in force already", hint="put another one on trial")
            candidate = Candidate(
                id=f"{kind}-{now.number + 1}-{policy.version[:8]}",
                policy=policy,
                family=its_family,
                share=asked.share,
                since=_now(),
                since_revision=now.number + 1,
                rule=asked.rule,
                auto=asked.auto or "off",
            )
            return now.model_copy(update={kind: candidate})

        return await self._plane.commit(change, f"{kind} {policy.version[:12]} at {asked.share:g}")

    async def end(
        self,
        kind: TrialKind,
        ending: Ending,
        by: Literal["operator", "verdict"],
        judged: Candidate | None = None,
    ) -> Committed:
        """Promote or withdraw the candidate, with all that is known then in the revision.

        Args:
            kind: which place.
            ending: what becomes of it.
            by: who says so. A verdict ends only what it still says so of, and what still lets it.
            judged: the candidate that is meant; None: whichever is there now.

        Raises:
            PolicyError: that one is not on trial there; or it does not fit any more.
        """
        now = await asyncio.to_thread(self._plane.current)
        candidate = judged or _on_trial(now, kind)
        await self._gather(now)
        ruling = self._ruling(kind, candidate, ending, by)

        def change(now: Revision) -> Revision:
            there = _on_trial(now, kind)
            if there.id != candidate.id:
                raise PolicyError("another candidate is on trial by now", hint="sluice policy show")
            if by == "verdict" and not (ruling.verdict.decision == ending and _lets(there, ending)):
                raise PolicyError("the verdict may not do that any more", hint="sluice policy show")
            if ending == "promote":
                now = now.serving(candidate.policy, candidate.family)
            return now.model_copy(update={kind: None, "rulings": (ruling,)})

        who = "by its verdict" if by == "verdict" else "by an operator"
        why = f"{_WHY[ruling.verdict.reason]}, {ruling.verdict.n} texts compared"
        name = candidate.policy.version[:12]
        return await self._plane.commit(change, f"{kind} {name} {_ENDED[ending]} {who}: {why}")

    async def standing(self) -> list[dict[str, Any]]:
        """Return each trial with its counts, rates and verdict so far."""
        revision = await asyncio.to_thread(self._plane.current)
        await self._gather(revision)
        return [self._describe(kind, candidate) for kind, candidate in revision.trials()]

    async def watch(self, every_s: float) -> None:
        """Gather counts and let verdicts act where they may, for ever."""
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.look()
            except Exception:
                log.exception("the trials could not be looked after this time")

    async def look(self) -> None:
        """Gather counts once, and let verdicts act where they may."""
        self._seen = revision = await asyncio.to_thread(self._plane.newest, self._seen)
        await self._gather(revision)
        for kind, candidate in revision.trials():
            decision = self._judge(candidate).decision
            if decision == "undecided" or not _lets(candidate, decision):
                continue
            if not self._evidence.knows(candidate.id):
                log.warning("what was kept of %s cannot be read now: its verdict waits", candidate.id)
                continue
            try:
                await self.end(kind, decision, "verdict", candidate)
            except PolicyError as problem:
                log.info("%s was not ended by its verdict: %s", candidate.id, problem)
                continue
            if decision == "promote":
                return

    async def _gather(self, revision: Revision) -> None:
        trials = {candidate.id for _, candidate in revision.trials()}
        self._evidence.forget_all_but(trials)
        if not trials:
            return
        await self._evidence.learn(trials)
        try:
            told = await self._witnesses.counts()
        except NotReady:
            log.warning("no replica tells its counts")
            return
        for one in told:
            for trial in trials & one.trials.keys():
                self._evidence.heard(trial, one.replica, one.trials[trial])
        for trial in trials:
            await self._evidence.keep(trial)

    def _judge(self, candidate: Candidate) -> Verdict:
        counts = self._evidence.total(candidate.id)
        return judge(candidate.rule, counts.pairs, counts.candidate)

    def _ruling(
        self,
        kind: TrialKind,
        candidate: Candidate,
        ending: Ending,
        by: Literal["operator", "verdict", "change"],
    ) -> Ruling:
        return Ruling(
            kind=kind,
            candidate=candidate,
            decision=ending,
            by=by,
            counts=self._evidence.total(candidate.id),
            verdict=self._judge(candidate),
        )

    def _with_rulings(self, before: Revision, changed: Revision) -> Revision:
        """Add a ruling on each trial that a change ends without a word, by what was gathered last."""
        rulings = () if changed.rulings is before.rulings else changed.rulings
        known = {candidate.id for _, candidate in changed.trials()} | {one.candidate.id for one in rulings}
        ended = [(kind, candidate) for kind, candidate in before.trials() if candidate.id not in known]
        silent = tuple(self._ruling(kind, candidate, "withdraw", "change") for kind, candidate in ended)
        return changed.model_copy(update={"rulings": (*rulings, *silent)})

    def _describe(self, kind: TrialKind, candidate: Candidate) -> dict[str, Any]:
        counts = self._evidence.total(candidate.id)
        resolved = counts.pairs.same + counts.pairs.differ
        return {
            "kind": kind,
            "id": candidate.id,
            "policy_version": candidate.policy.version,
            "family_sha256": candidate.family.sha256,
            "stages": [stage.variant for stage in candidate.policy.stages],
            "share": candidate.share,
            "since": candidate.since,
            "auto": candidate.auto,
            "rule": candidate.rule.model_dump(mode="json"),
            "counts": counts.model_dump(mode="json"),
            "arms": {"live": counts.live.summary(), kind: counts.candidate.summary()},
            "agreement": counts.pairs.same / resolved if resolved else None,
            "verdict": self._judge(candidate).model_dump(mode="json"),
            "says": _WHY[self._judge(candidate).reason],
        }


def _goes_on(trial: Candidate, asked: TrialAsked) -> Candidate:
    """Return a trial with another share, and its own rule; raises PolicyError where another is asked for."""
    given = {name: getattr(asked.rule, name) for name in asked.rule.model_fields_set}
    other = [name for name, value in given.items() if value != getattr(trial.rule, name)]
    if other:
        raise PolicyError(
            f"it is on trial by a rule with another {', '.join(sorted(other))}, and its counts are for that",
            hint="--anew begins again without them",
        )
    return trial.model_copy(update={"share": asked.share, "auto": asked.auto or trial.auto})


def _lets(candidate: Candidate, ending: Ending) -> bool:
    """Return whether a verdict may end it so by itself."""
    return candidate.auto == "both" or (candidate.auto == "withdraw" and ending == "withdraw")


def _on_trial(revision: Revision, kind: TrialKind) -> Candidate:
    found = revision.canary if kind == "canary" else revision.shadow
    if found is None:
        raise PolicyError(f"no {kind} is on trial", hint=f"sluice policy {kind} POLICY --share S begins one")
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
