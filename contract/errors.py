"""The error tree: what can go wrong, named once, mapped to exit codes and HTTP at the edges.

SluiceError
├── InputError              what the user gave is wrong: names the file, the rule, the next step
│   ├── DataError             labelled data
│   ├── RecipeError           a recipe
│   ├── FamilyError           a family folder or its manifest
│   ├── PredictionsError      predictions.parquet or costs.json
│   ├── PolicyError           policy.json, or a policy that does not fit its family
│   └── RunError              a run folder
├── EnvironmentProblem      this machine lacks something: a package, a provider, a free port
├── RemoteFailure           a model behind HTTP gave no answer: carries kind, status and retry_after_s
├── TargetNotMet            the work ran; the target was not reached
└── RequestError            one inference request cannot be answered as asked
    ├── BadRequest            malformed or against the protocol
    ├── UnknownModel          no such model
    ├── TooLarge              a body, batch or text beyond the limits
    ├── Unauthorized          no valid key
    ├── Forbidden             a valid key, for other things
    ├── LimitReached          a key's own limit; carries retry_after_s
    ├── Overloaded            no room now; carries retry_after_s
    ├── DeadlineExceeded      too late to answer
    ├── NotReady              not serving yet, or draining
    └── StageFailed           a stage broke; the text given to clients is generic
        └── StageBroken         and not for a fault of the request
"""

from __future__ import annotations

from typing import Any, Literal


class SluiceError(Exception):
    """Root of every error that Sluicegate raises on purpose.

    Every instance pickles to an equal one, since errors cross process borders.

    Args:
        message: what went wrong.
        hint: the next thing to try; ends the message.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        self.hint = hint
        whole = message if hint is None else f"{message}\n  try: {hint}"
        # What is wrong may be half a surrogate pair, which no file and no JSON could hold.
        self.message = whole.encode("utf-8", "backslashreplace").decode()
        super().__init__(self.message)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.__dict__.copy())


def _rebuild(kind: type[SluiceError], state: dict[str, Any]) -> SluiceError:
    error = kind.__new__(kind)
    Exception.__init__(error, state["message"])
    error.__dict__.update(state)
    return error


class InputError(SluiceError):
    """What the user gave is wrong.

    Args:
        rule: what is wrong, against which rule, in one sentence.
        where: the file (with row or key) or flag concerned, if there is one.
        hint: the next thing to try.
    """

    def __init__(self, rule: str, *, where: object | None = None, hint: str | None = None) -> None:
        self.rule = rule
        self.where = None if where is None else str(where)
        super().__init__(rule if where is None else f"{where}: {rule}", hint=hint)


class DataError(InputError):
    """Labelled data that breaks a rule; names file, row and rule."""


class RecipeError(InputError):
    """A recipe that breaks a rule."""


class FamilyError(InputError):
    """A family folder that is missing, newer than this reader, altered, or leaves its folder."""


class PredictionsError(InputError):
    """A predictions table or cost table that breaks a rule."""


class PolicyError(InputError):
    """A policy that breaks a rule or does not fit the family it is used with."""


class RunError(InputError):
    """A run folder that is missing or incomplete."""


class EnvironmentProblem(SluiceError):
    """This machine lacks something that was asked for."""


FailureKind = Literal["unreachable", "late", "busy", "broken", "rejected", "unreadable", "declined"]


class RemoteFailure(SluiceError):
    """A model behind HTTP gave no answer.

    Args:
        kind: unreachable: no connection, or it broke; late: no reply in time; busy: told to come back later;
            broken: an error of the server; rejected: it will not have our request, so that asking again is in
            vain; unreadable: a reply that is not in the form; declined: the model refused, or named no label
            that was offered.
        message: what happened.
        status: of HTTP, where there was a reply.
        retry_after_s: how long the server wants to be left alone, where it said so.
        said: the model's or the server's own words, which may quote a text: for a terminal, and no file.

    Attributes:
        usd: what replies cost that came before it, its own included.
    """

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        hint: str | None = None,
        said: str = "",
    ) -> None:
        self.kind: FailureKind = kind
        self.status = status
        self.retry_after_s = retry_after_s
        self.said = said
        self.usd = 0.0
        super().__init__(message, hint=hint)

    @property
    def passes(self) -> bool:
        """Whether the same request may be answered at another time."""
        return self.kind in {"unreachable", "late", "busy", "broken"}


class TargetNotMet(SluiceError):
    """The work was done and the target was not reached (exit code 3)."""


class RequestError(SluiceError):
    """One inference request cannot be answered as asked. The message is safe to show to clients."""


class BadRequest(RequestError):
    """The request is malformed or against the protocol."""


class UnknownModel(RequestError):
    """No model of that name is served."""

    def __init__(self, model: str, known: tuple[str, ...] = ()) -> None:
        self.model = model
        self.known = known
        listed = f"; serving: {', '.join(known)}" if known else ""
        super().__init__(f"unknown model {model[:80]!r}{listed}")


class TooLarge(RequestError):
    """A body, batch or text is beyond the limits of this gateway."""


class Unauthorized(RequestError):
    """No valid key came with the request."""


class Forbidden(RequestError):
    """A valid key came with the request, and it is for other things."""

    def __init__(self, message: str, *, scope: str = "") -> None:
        self.scope = scope
        super().__init__(message)


class LimitReached(RequestError):
    """The key has used up its rate or its daily quota, which `limit` names; others are served."""

    def __init__(self, message: str, *, limit: str = "rate", retry_after_s: float = 1.0) -> None:
        self.limit = limit
        self.retry_after_s = retry_after_s
        super().__init__(message)


class Overloaded(RequestError):
    """The gateway has no room for this request now."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class DeadlineExceeded(RequestError):
    """The deadline of the request passed before there was an answer."""


class NotReady(RequestError):
    """The gateway, or a stage of it, does not serve yet, or not now, or is draining."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class StageFailed(RequestError):
    """A stage broke while answering; details are in the server's log, not in the message."""


class StageBroken(StageFailed):
    """A stage broke, and breaks on its own example too: the fault is not the request's."""
