"""From a torch network to an ONNX graph of any batch and length, checked before anybody sees it."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from compress.datasets.data import DATA, read_dataset
from compress.encoders import encoder_of, hand_on
from compress.graphs.fuse import fuse_file
from compress.graphs.verify import (
    of_given,
    require_faithful,
    require_finite,
    verification_texts,
    verify_graph,
)
from compress.networks.models import GraphInputs, Network, load_network
from compress.onnx_graphs.session import open_session
from compress.onnx_graphs.source import LARGEST
from compress.steps import Context, Result
from contract.errors import SluiceError
from contract.family import Batching, Verification
from contract.files import atomic_path, write_bytes

GRAPH = "model.onnx"

OPSET = 20
PROBE_ERROR_LIMIT = 1e-3


def export_step(context: Context) -> Result:
    """Export the parent's network, verify it on validation texts, and put the tokenizer beside it."""
    parent = context.inputs["parent"]
    network = load_network(parent.folder)
    spec = hand_on(parent, context.folder)
    context.update(0.1, "tracing")
    export_onnx(network, context.folder / GRAPH, name=parent.step)
    context.update(0.8, "verifying")
    texts = verification_texts(read_dataset(context.inputs["data"].file(DATA)), seed=context.recipe.seed)
    encoded = encoder_of(parent).encode(texts)
    batching: Batching = "single" if network.alone else "batched"
    precision = network.precision
    verification = verify_graph(
        context.folder / GRAPH, network, encoded, precision=precision, batching=batching, name=parent.step
    )
    require_faithful(verification, precision, context.step.name, batching=batching)
    if network.graph is not None:
        given = Verification.model_validate(parent.result["verification"])
        verification = of_given(verification, given)
    return {
        "artifact": GRAPH,
        "runtime": "onnx",
        "precision": precision,
        "batching": batching,
        "encoder": spec.model_dump(mode="json"),
        "parameters": parent.result["parameters"],
        "flops_per_text": network.flops(float(encoded.lengths.mean())),
        "verification": verification.model_dump(mode="json"),
    }


def export_onnx(network: Network, path: Path, *, fused: bool = True, name: str = "the network") -> None:
    """Write the network as ONNX: its graph inputs in, `logits` out, any batch and length.

    One that is a graph already is copied as it is.

    Args:
        network: put into evaluation mode.
        path: of the file.
        fused: rewrite it for ONNX Runtime on a processor; else it has ONNX's own operators alone.
        name: of the network, for errors.

    Raises:
        SluiceError: when an answer is not finite, or the graph's differ from the network's at a probe.
    """
    if network.graph is not None:
        write_bytes(path, network.graph.read_bytes())
        return
    network.eval()
    inputs = network.graph_inputs()
    size = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
    if size > LARGEST:
        raise SluiceError(
            f"{name}: its weights take {size / 2**30:.1f} GiB; an ONNX file holds less than 2 GiB",
            hint="take a smaller teacher, or distil from answers that it gave elsewhere",
        )
    with atomic_path(path) as temporary, _quiet(), torch.inference_mode():
        _trace(network, inputs, temporary, name)
        if fused:
            fuse_file(temporary)
        check_probes(network, temporary, name=name)


def _trace(network: Network, inputs: GraphInputs, temporary: Path, name: str) -> None:
    try:
        torch.onnx.export(
            network,
            inputs.example,
            str(temporary),
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            input_names=list(inputs.names),
            output_names=["logits"],
            dynamic_shapes={name: dict(axes) for name, axes in inputs.axes.items()},
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as problem:
        cause = problem.__cause__ or problem
        first = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        raise SluiceError(
            f"{name}: torch cannot trace it for batches and texts of any length: {first.strip()}",
            hint="export it with its own library, and give the .onnx file as teacher.weights",
        ) from problem


def check_probes(network: Network, path: Path, *, name: str = "the network") -> float:
    """Return the largest logit difference between graph and network over the network's probes.

    Raises:
        SluiceError: when it is not within PROBE_ERROR_LIMIT, a logit is not finite, or a shape does not run.
        EnvironmentProblem: without ONNX Runtime.
    """
    session = open_session(str(path))
    inputs = network.graph_inputs()
    worst = 0.0
    for probe in inputs.probes:
        with torch.inference_mode():
            wanted = network(*probe).float().numpy()
        require_finite(wanted, name)
        feeds = {name: tensor.numpy() for name, tensor in zip(inputs.names, probe, strict=True)}
        try:
            found = session.run(None, feeds)[0]
        except Exception as problem:
            shape = "x".join(str(size) for size in probe[0].shape)
            raise SluiceError(f"{name}: its exported graph fails at shape {shape}: {problem}") from problem
        worst = float(np.maximum(worst, np.abs(found - wanted).max()))
    if not worst <= PROBE_ERROR_LIMIT:
        raise SluiceError(f"{name}: its exported graph differs from it by {worst:.2g} in its logits")
    return worst


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in ("torch.onnx", "onnxscript", "onnx_ir")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
