"""What the metrics are told of a request that was read and gets no answer, whatever its protocol."""

from __future__ import annotations

from contract.errors import LimitReached, RequestError
from serve.dataplane.front import Plane
from serve.types.messages import ClassifyRequest
from serve.types.recorder import Recorder
from serve.wire.errors import outcome_of


def count_refusal(
    dataplane: Plane, recorder: Recorder, request: ClassifyRequest, problem: RequestError
) -> None:
    """Count the texts of a refused request by its model, and by its key's limit where one was reached."""
    model, told = dataplane.whose(request) or ("unknown", recorder)
    told.refused(model, outcome_of(problem), len(request.texts))
    if isinstance(problem, LimitReached):
        recorder.limited(request.caller, problem.limit, len(request.texts))
