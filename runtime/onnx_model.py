"""Runtime on ONNX Runtime: sessions with every option that decides speed or answers set explicitly."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import EnvironmentProblem, FamilyError
from contract.family import Batching
from contract.machine import Provider
from runtime.api import Encoded, Logits
from runtime.pixels import PIXELS
from runtime.wordpiece import ATTENTION_MASK, INPUT_IDS, TOKEN_TYPES

Feeds = dict[str, NDArray[np.generic]]

_PROVIDERS: dict[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_KNOWN_INPUTS = (frozenset({INPUT_IDS, ATTENTION_MASK, TOKEN_TYPES}), frozenset({PIXELS}))

# Texts of one call are run in groups of like length: padded tokens cost as much as real ones. One
# processor core is fastest per token at 100 to 250 tokens a run: beyond, activations leave its caches.
_GROUP_PADDING = 1.15
_GROUP_TOKENS: dict[Provider, int] = {"cpu": 256, "cuda": 16384, "tensorrt": 16384}


def groups_of_like_length(lengths: NDArray[np.int64], most_tokens: int) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of texts that run together, the shortest first.

    A group has at most `most_tokens` tokens with its padding, and a seventh more than without; or one text.
    """
    order = np.argsort(lengths, kind="stable")
    start, total = 0, 0
    for end, row in enumerate(order):
        length = int(lengths[row])
        padded = length * (end - start + 1)
        if end > start and (padded > most_tokens or padded > _GROUP_PADDING * (total + length)):
            yield order[start:end]
            start, total = end, 0
        total += length
    yield order[start:]


def check_provider(provider: Provider) -> None:
    """Raise EnvironmentProblem unless ONNX Runtime is installed, alone, and offers the provider."""
    runtime = _onnxruntime()
    there = runtime.get_available_providers()
    if _PROVIDERS[provider] not in there:
        raise EnvironmentProblem(
            f"--provider {provider} needs ONNX Runtime's {_PROVIDERS[provider]}, which is not installed; "
            f"installed: {', '.join(there)}",
            hint="pip uninstall onnxruntime && pip install 'sluicegate[gpu]'",
        )


def _onnxruntime() -> ModuleType:
    both = [name for name in ("onnxruntime", "onnxruntime-gpu") if _installed(name)]
    if len(both) > 1:
        raise EnvironmentProblem(
            "onnxruntime and onnxruntime-gpu are both installed; they overwrite each other's files",
            hint="pip uninstall onnxruntime onnxruntime-gpu, then pip install the one you want",
        )
    try:
        import onnxruntime
    except ImportError as problem:
        raise EnvironmentProblem(
            f"ONNX Runtime does not load: {problem}", hint="pip install 'sluicegate[cpu]'"
        ) from None
    module: ModuleType = onnxruntime
    return module


def _installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


class OnnxRuntime:
    """Answers from an ONNX graph whose first output is logits [batch, C].

    Its inputs are `input_ids`, `attention_mask` and, where declared, `token_type_ids`, int64
    [batch, length]; or `pixels` alone, float32 [batch, channels, height, width].

    Args:
        path: the graph.
        encoder: sha256 of the encoding that the graph was made for.
        provider: where it runs; ONNX Runtime's silent fall-back to the processor is an error.
        threads: threads of one call.
        batching: `single` runs every text alone and unpadded.

    Raises:
        EnvironmentProblem: the library or provider is missing or fails to start.
        FamilyError: the graph does not load or wants other inputs.
    """

    def __init__(
        self,
        path: Path,
        *,
        encoder: str,
        provider: Provider = "cpu",
        threads: int = 1,
        batching: Batching = "batched",
    ) -> None:
        check_provider(provider)
        self._encoder = encoder
        self._batching = batching
        self._group_tokens = _GROUP_TOKENS[provider] * (threads if provider == "cpu" else 1)
        self._session = _open(path, provider, threads)
        # What `run` does before it calls this costs a small graph two percent, and is for other devices.
        self._call = (
            getattr(self._session, "_sess", self._session).run if provider == "cpu" else self._session.run
        )
        self._inputs = tuple(item.name for item in self._session.get_inputs())
        self._outputs = [self._session.get_outputs()[0].name]
        self._takes_pixels = PIXELS in self._inputs
        self._takes_tokens_alone = {INPUT_IDS, ATTENTION_MASK}.issuperset(self._inputs)
        named = set(self._inputs)
        if not (named & {INPUT_IDS, PIXELS} and any(named <= known for known in _KNOWN_INPUTS)):
            known = " or ".join(str(sorted(names)) for names in _KNOWN_INPUTS)
            raise FamilyError(f"the graph wants inputs {sorted(named)}; known are {known}", where=path)

    def logits(self, encoded: Encoded) -> Logits:
        """Return float32 logits [N, C].

        Raises:
            FamilyError: when another encoder made the input.
        """
        if encoded.encoder != self._encoder:
            raise FamilyError("the texts were encoded for another variant: encoder hashes differ")
        if len(encoded.lengths) == 1:
            return self._run(self._feeds(encoded, slice(None), int(encoded.lengths[0])))
        parts: list[Logits] = []
        order: list[NDArray[np.int64]] = []
        for rows in self._groups(encoded.lengths):
            parts.append(self._run(self._feeds(encoded, rows, int(encoded.lengths[rows].max()))))
            order.append(rows)
        found = np.concatenate(parts)
        out = np.empty_like(found)
        out[np.concatenate(order)] = found
        return out

    def close(self) -> None:
        """Let the session go; its memory is freed once no call holds it."""
        self._session = self._call = None

    def _groups(self, lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        if self._batching == "single":
            yield from np.argsort(lengths, kind="stable")[:, None]
        else:
            yield from groups_of_like_length(lengths, self._group_tokens)

    def _feeds(self, encoded: Encoded, rows: slice | NDArray[np.int64], longest: int) -> Feeds:
        arrays = encoded.arrays
        if self._takes_pixels:
            return {PIXELS: np.ascontiguousarray(arrays[PIXELS][rows], dtype=np.float32)}
        if self._takes_tokens_alone and arrays[INPUT_IDS].shape == (1, longest):
            return {name: arrays[name] for name in self._inputs}
        ids = np.ascontiguousarray(arrays[INPUT_IDS][rows, :longest], dtype=np.int64)
        feeds: Feeds = {INPUT_IDS: ids}
        if ATTENTION_MASK in self._inputs:
            mask = arrays[ATTENTION_MASK][rows, :longest]
            feeds[ATTENTION_MASK] = np.ascontiguousarray(mask, dtype=np.int64)
        if TOKEN_TYPES in self._inputs:
            types = arrays.get(TOKEN_TYPES)
            feeds[TOKEN_TYPES] = (
                np.zeros_like(ids)
                if types is None
                else np.ascontiguousarray(types[rows, :longest], dtype=np.int64)
            )
        return feeds

    def _run(self, feeds: Feeds) -> Logits:
        found: Logits = self._call(self._outputs, feeds, None)[0]
        return found.astype(np.float32, copy=False)


def _open(path: Path, provider: Provider, threads: int) -> Any:
    runtime = _onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    # Spinning threads burn the cores that other requests need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Without it, x86 rewrites S8S8 graphs and leaves half of their MatMuls in FP32.
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    wanted = _PROVIDERS[provider]
    chain = [wanted] if provider == "cpu" else [wanted, _PROVIDERS["cpu"]]
    try:
        session = runtime.InferenceSession(str(path), options, providers=chain)
    except Exception as problem:  # noqa: BLE001 (its exceptions share no public base)
        raise FamilyError(f"ONNX Runtime cannot load the graph: {problem}", where=path) from None
    if session.get_providers()[0] != wanted:
        raise EnvironmentProblem(
            f"--provider {provider} was asked for, but {wanted} did not start (driver or libraries missing?)",
            hint="check that nvidia-smi works and that CUDA's libraries are found, or use --provider cpu",
        )
    return session
