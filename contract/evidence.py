"""The written form of live evidence: audits in blocks, the rule that they are judged by, and what follows.

Whoever has the rule and the blocks can work out the standing again: `router.live.watch` does. A text that
is drawn, accepted and answered alike by the reference says nothing more; any other is a row of its own.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from contract.errors import InputError
from contract.files import sha256_of_json
from contract.records import Frozen, parse_record

SCHEMA = 1

LiveMode = Literal["watch", "guard", "steer"]
Yardstick = Literal["", "drop", "disagreement"]
Acted = Literal["fell_back", "to_reference", "tightened", "loosened"]
Outcome = Literal["agreed", "differed", "worse", "better", "even", "open"]


class LiveRule(Frozen):
    """What is promised of live traffic, and how sure an alarm has to be.

    Attributes:
        promised_drop: largest drop from the reference's accuracy; None: nothing is promised of it.
        max_disagreement: largest share of texts answered otherwise than by the reference; None: likewise.
        delta: chance of ever raising a false alarm, and of the live interval ever missing the drop.
        floor: smallest probability with which a text is drawn.
    """

    promised_drop: float | None = Field(default=None, ge=-1, lt=1)
    max_disagreement: float | None = Field(default=None, ge=0, lt=1)
    delta: float = Field(default=0.1, gt=0, lt=1)
    floor: float = Field(gt=0, le=1)


class AuditRow(Frozen):
    """A drawn text that the reference answers otherwise, or has not answered.

    Attributes:
        request_id, index: of the decision; at: Unix seconds at which it was drawn.
        probability: with which it was drawn, known at that moment.
        variant, score, answer: of the stage that answered, or, where `escalated`, of the first stage, which
            the reference overruled: its loss is 0 then, but not on a rung that would accept it.
        said: the reference's answer; None: not known yet, or never.
        truth: the true label, where somebody told it.
    """

    request_id: str
    index: int = Field(default=0, ge=0)
    at: float
    probability: float = Field(gt=0, le=1)
    variant: str
    score: float
    answer: str
    said: str | None = None
    escalated: bool = False
    truth: str | None = None

    @property
    def outcome(self) -> Outcome:
        """What is known of its loss: 1 where worse, -1 where better, 0 where even or agreed."""
        if self.said is None:
            return "open"
        if self.said == self.answer:
            return "agreed"
        if self.truth is None:
            return "differed"
        return "worse" if self.truth == self.said else "better" if self.truth == self.answer else "even"


class Block(Frozen):
    """Texts that follow one another, closed by a number of draws.

    Attributes:
        texts: answered while audits were open, up to the last one drawn; `draws` were drawn of them.
        asked: of these, accepted ones to which the reference gave its answer.
        agreed: answered alike, or by the reference itself; `rows` the other draws.
        under: by rung of a ladder, the weighted number of texts that it would have escalated.
    """

    texts: int = Field(default=0, ge=0)
    draws: int = Field(default=0, ge=0)
    asked: int = Field(default=0, ge=0)
    agreed: int = Field(default=0, ge=0)
    rows: tuple[AuditRow, ...] = ()
    under: tuple[float, ...] = ()


class LiveStanding(Frozen):
    """What blocks prove under a rule.

    Attributes:
        texts, draws: watched, and drawn of them; `asked` the draws that the reference was needed for and
            answered; `labelled` those of the differing ones whose true label is known.
        drop: the estimate, differences without a label counted as the reference being right.
        drop_low, drop_high: hold at all times at once, with probability 1 - delta, for the mean over the
            texts so far, however it drifts.
        disagreement: estimated share of texts answered otherwise than by the reference.
        log_wealth: against the promise, the largest so far; `needed` raises the alarm.
        alarm: by what it was raised; empty: it was not. `since_text`: about where the excess began.
    """

    texts: int = 0
    draws: int = 0
    asked: int = 0
    labelled: int = 0
    drop: float | None = None
    drop_low: float = -1.0
    drop_high: float = 1.0
    disagreement: float | None = None
    log_wealth: float = 0.0
    needed: float = 0.0
    alarm: Yardstick = ""
    since_text: int | None = None


class LiveEvidence(Frozen):
    """All that is known of a policy in force from audits, as it is kept, exported and hashed.

    Attributes:
        family: name that it is served under; `policy_version` in force; `reference` that is asked.
        base_version: the policy that the operator put in force, where steering moved away from it.
        epoch: grows by one with each alarm that was acted on; each spends delta / (epoch (epoch + 1)).
        ladder: thresholds of the first stage, safest first, and `rung` the one in force; empty: none.
        before_sha256: of the evidence of the epoch before; empty: there is none.
        standing: what follows from the rest.
    """

    schema_: int = Field(default=SCHEMA, alias="schema")
    family: str
    policy_version: str
    reference: str
    since: str
    rule: LiveRule
    base_version: str = ""
    epoch: int = Field(default=1, ge=1)
    ladder: tuple[float, ...] = ()
    rung: int | None = None
    before_sha256: str = ""
    blocks: tuple[Block, ...] = ()
    standing: LiveStanding = LiveStanding()

    def dump(self) -> dict[str, Any]:
        """Return the JSON form."""
        return self.model_dump(mode="json", by_alias=True)

    def sha256(self) -> str:
        """Return the hash of the JSON form."""
        return sha256_of_json(self.dump())


class Move(Frozen):
    """What the gateway did by itself on live evidence; in the revision that it made.

    Attributes:
        mode, action: by which mode, and what.
        from_version: of the policy that it moved away from; `base_version`: that the operator put in force.
        evidence_sha256: of the LiveEvidence behind it, kept beside the revisions.
        rule, standing: that evidence in short.
    """

    mode: LiveMode
    action: Acted
    from_version: str
    base_version: str
    evidence_sha256: str
    rule: LiveRule
    standing: LiveStanding


def parse_evidence(raw: Any, *, where: object | None = None) -> LiveEvidence:
    """Return evidence from its JSON form. Raises InputError naming the file and rule."""
    return parse_record(LiveEvidence, raw, where=where, error=InputError, newest=SCHEMA)
