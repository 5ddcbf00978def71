"""Refusals of the decision endpoints: the error object of OpenAI's API, which its clients read."""

from __future__ import annotations

from http import HTTPStatus

import orjson

from contract.errors import DeadlineExceeded, LimitReached, RequestError, StageFailed
from serve.wire.common import Reply
from serve.wire.decisions.asked import InvalidRequest
from serve.wire.errors import error_reply

DECISIONS = "/v1/decisions"
SYSTEM_ONE = "/v1/systemone"
PATHS = frozenset({DECISIONS, SYSTEM_ONE})

_TYPE = {400: "invalid_request_error", 429: "rate_limit_error"}
_CODE = {
    401: "invalid_api_key",
    403: "insufficient_permissions",
    404: "model_not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "request_too_large",
    415: "unsupported_media_type",
    429: "overloaded",
    500: "internal_error",
    503: "not_ready",
    504: "deadline_exceeded",
}
_LONGEST_WAIT_S = 60.0
"""Clients wait no longer; a quota that is back sooner was held by others for a moment."""
_NO_RETRY = ((b"x-should-retry", b"false"),)
"""Clients of OpenAI's API obey it; without it they try again whatever is 429 or 5xx."""


class NoUsableAnswer(StageFailed):
    """The upstream has answered, with nothing that could be passed on: another try would be paid for too."""


def openai_error(problem: RequestError) -> Reply:
    """Return the reply to a decision request that failed with `problem`."""
    reply = error_reply(problem)
    code, param = _CODE.get(reply.status), None
    headers = reply.headers
    if isinstance(problem, InvalidRequest):
        code, param = problem.code, problem.param
    elif isinstance(problem, LimitReached):
        used_up = problem.limit != "rate" and problem.retry_after_s > _LONGEST_WAIT_S
        code = "insufficient_quota" if used_up else "rate_limit_exceeded"
    if isinstance(problem, DeadlineExceeded | NoUsableAnswer) or code == "insufficient_quota":
        headers = (*headers, *_NO_RETRY)
    return openai_refusal(reply.status, problem.message, code, param, headers)


def openai_refusal(
    status: int,
    message: str,
    code: str | None = None,
    param: str | None = None,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> Reply:
    """Return a refusal in the form of OpenAI's API; without a code it has that of its status."""
    kind = _TYPE.get(status, "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else _TYPE[400])
    told = {
        "message": message.encode("utf-8", "replace").decode(),
        "type": kind,
        "code": _CODE.get(status) if code is None else code,
        "param": param,
    }
    return Reply(orjson.dumps({"error": told}), status, headers=headers)


def in_the_form_of(path: str, reply: Reply) -> Reply:
    """Return a refusal of ours in the form that clients of this path expect."""
    if path not in PATHS:
        return reply
    message = orjson.loads(reply.body)["error"]
    return openai_refusal(reply.status, message, headers=reply.headers)
