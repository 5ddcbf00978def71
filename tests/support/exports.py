"""Exports of toy networks: each is exported once in a process, however many tests start from its graph."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import torch

from compress.graphs.export import export_onnx
from compress.networks.network import Classifier

_MADE: dict[str, bytes] = {}


def export_once(network: Classifier, path: Path, *, fused: bool = True) -> None:
    """Write the graph that `export_onnx` makes of a network; an equal network's is written again."""
    weights = io.BytesIO()
    torch.save(network.state_dict(), weights)
    key = hashlib.sha256(weights.getvalue() + f"{network.shape} {fused}".encode()).hexdigest()
    if key not in _MADE:
        export_onnx(network, path, fused=fused)
        _MADE[key] = path.read_bytes()
    path.write_bytes(_MADE[key])
