"""Sessions for looking into graphs: on processors, without what serving adds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from contract.errors import EnvironmentProblem

if TYPE_CHECKING:
    import onnxruntime


def open_session(graph: str | bytes, *, threads: int = 1) -> onnxruntime.InferenceSession:
    """Return a session of a graph's file or content. Raises EnvironmentProblem without ONNX Runtime."""
    try:
        import onnxruntime
    except ImportError as problem:
        raise EnvironmentProblem(
            f"ONNX Runtime does not load: {problem}", hint="pip install 'sluicegate[cpu]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # What fails is raised; it need not be on the terminal too.
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
