"""The table explains the times it is made from, and graphs joined from halves are those of real networks."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.graphs.export import export_onnx
from compress.graphs.lower import quantize_dynamic
from compress.networks.network import Classifier, LayerShape
from compress.pruning.halves import Halves
from compress.pruning.latency_table import LatencyTable, lay_out, solve_table, width_grid
from compress.pruning.timing import TablePlan, measure_table
from contract.errors import SluiceError
from contract.files import read_json, write_json
from runtime.wordpiece import WordPieceEncoder
from tests.compress.conftest import random_network, toy_shape, toy_texts, toy_tokenizer
from tests.compress.networks.test_network import batch
from tests.support.exports import export_once

HEADS, NEURONS = (0, 1, 2, 3, 4), (0, 32, 64, 96)


@given(most=st.integers(0, 5000))
def test_the_grid_descends_in_kernel_friendly_steps(most: int) -> None:
    """From the whole to nothing, in multiples of 32 apart from the whole itself, none far from the next."""
    grid = width_grid(most)
    assert grid[0] == 0
    assert grid[-1] == most
    assert list(grid) == sorted(set(grid))
    assert all(width % 32 == 0 for width in grid[:-1])
    assert all(b <= 2 * a for a, b in pairwise(grid[1:]))


def additive(layers: tuple[LayerShape, ...]) -> float:
    """Return the time of a machine whose halves add up: a jump where there is one, then a straight line."""
    return 0.1 + sum(
        0.02 * (x.heads > 0) + 0.01 * x.heads + 0.005 * (x.neurons > 0) + 0.001 * x.neurons for x in layers
    )


def test_additive_times_are_explained_exactly() -> None:
    """From uneven networks of an additive machine the table predicts networks it has not seen."""
    networks = lay_out(HEADS, NEURONS, 4, 40, seed=0)
    assert {layer.heads for layers in networks for layer in layers} == set(HEADS)
    times = np.array([[additive(layers), 2 * additive(layers)] for layers in networks])
    fixed, attention, feed = solve_table(networks, times, HEADS, NEURONS)
    assert fixed == pytest.approx([0.1, 0.2], rel=1e-3)
    assert attention[3] == pytest.approx([0.05, 0.1], rel=1e-3)
    assert feed[64] == pytest.approx([0.069, 0.138], rel=1e-3)


@given(seed=st.integers(0, 50))
def test_noise_neither_makes_wider_cheaper_nor_predicts_badly(seed: int) -> None:
    """With a tenth of noise on every time the terms still grow with width and new networks are near."""
    rng = np.random.default_rng(seed)
    networks = lay_out(HEADS, NEURONS, 4, 48, seed=seed)
    times = np.array([[additive(layers) * rng.uniform(1, 1.1)] for layers in networks])
    fixed, attention, feed = solve_table(networks, times, HEADS, NEURONS)
    assert (np.diff(np.array(list(attention.values()))[:, 0]) >= 0).all()
    assert (np.diff(np.array(list(feed.values()))[:, 0]) >= 0).all()
    for layers in lay_out(HEADS, NEURONS, 4, 10, seed=seed + 99):
        said = fixed[0] + sum(attention[x.heads][0] + feed[x.neurons][0] for x in layers)
        assert said == pytest.approx(1.05 * additive(layers), rel=0.12)


def menu(tmp_path: Path, quantized: bool) -> tuple[Classifier, Path]:
    """Return a network of unlike layers and its graph."""
    torch.manual_seed(1)
    layers = (LayerShape(4, 16), LayerShape(2, 32), LayerShape(1, 48))
    network = Classifier(toy_shape(layers=layers))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    export_once(network, tmp_path / "menu.onnx")
    if quantized:
        quantize_dynamic(tmp_path / "menu.onnx", tmp_path / "q.onnx")
    return network, tmp_path / ("q.onnx" if quantized else "menu.onnx")


def answers(path: Path, ids: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
    """Return a graph's logits."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0]
    return found


@pytest.mark.parametrize("quantized", [False, True])
def test_halves_joined_as_they_were_answer_as_before(tmp_path: Path, quantized: bool) -> None:
    """Cutting a graph apart and joining it again changes no answer, in FP32 and in INT8."""
    network, path = menu(tmp_path, quantized)
    Halves(path, layers=3).join([0, 1, 2], [0, 1, 2], tmp_path / "joined.onnx")
    inputs = batch(network)
    np.testing.assert_allclose(answers(tmp_path / "joined.onnx", *inputs), answers(path, *inputs), atol=1e-5)


def test_joined_halves_are_the_network_of_those_widths(tmp_path: Path) -> None:
    """Halves in another order, one twice, one never and some left out, are the torch network of the same."""
    network, path = menu(tmp_path, quantized=False)
    order: tuple[list[int | None], list[int | None]] = ([1, None, 1, 2, None], [2, 2, 0, None, None])
    Halves(path, layers=3).join(*order, tmp_path / "joined.onnx")
    shapes = network.shape.layers
    layers = tuple(
        LayerShape(0 if a is None else shapes[a].heads, 0 if f is None else shapes[f].neurons)
        for a, f in zip(*order, strict=True)
    )
    wanted = Classifier(replace(network.shape, layers=layers))
    state = {name: value for name, value in network.state_dict().items() if not name.startswith("layers.")}
    for place, (a, f) in enumerate(zip(*order, strict=True)):
        for source, own in ((a, True), (f, False)):
            if source is None:
                continue
            for name, value in network.layers[source].state_dict().items():
                if name.startswith("attention") == own:
                    state[f"layers.{place}.{name}"] = value
    wanted.load_state_dict(state)
    wanted.eval()
    inputs = batch(network)
    with torch.inference_mode():
        expected = wanted(*inputs).numpy()
    np.testing.assert_allclose(answers(tmp_path / "joined.onnx", *inputs), expected, atol=1e-4, rtol=1e-4)


def test_a_graph_of_another_depth_is_refused(tmp_path: Path) -> None:
    """A graph that is not such a chain is not cut."""
    _, path = menu(tmp_path, quantized=False)
    with pytest.raises(SluiceError, match="cannot be cut"):
        Halves(path, layers=2)


def test_a_measured_table_predicts_and_survives_its_file(tmp_path: Path) -> None:
    """A real table of a toy network has every width, checks itself on strangers, and reads back the same."""
    encoder = WordPieceEncoder(toy_tokenizer().to_str().encode(), max_length=24)
    texts = [text for text, _ in toy_texts(60)]
    shape = random_network().shape
    told: list[float] = []
    table = measure_table(
        shape, export_onnx, "fp32", encoder, texts,
        TablePlan(networks=16, seconds=0.1), lambda share, _: told.append(share),
    )  # fmt: skip
    assert (table.precision, table.threads, table.layers) == ("fp32", 1, 3)
    assert set(table.attention_ms) == {0, 1, 2, 3, 4}
    assert set(table.feed_ms) == {0, 32, 48}
    assert len(table.checked) == 8
    assert list(table.lengths) == sorted(table.lengths)
    assert table.half_ms("attention", 0) == table.half_ms("feed", 0) == 0
    between = (table.half_ms("feed", 32) + table.half_ms("feed", 48)) / 2
    assert table.half_ms("feed", 40) == pytest.approx(between)
    wide, narrow = (table.p50_ms((LayerShape(*widths),) * 3) for widths in ((4, 48), (1, 32)))
    assert 0 < table.p50_ms(()) <= narrow <= wide
    assert told[-1] <= 1
    write_json(tmp_path / "table.json", table.to_json())
    assert LatencyTable.from_json(read_json(tmp_path / "table.json")) == table


@pytest.mark.parametrize(
    "layers", [(LayerShape(0, 48), LayerShape(0, 32)), (LayerShape(2, 0), LayerShape(4, 0))]
)
def test_a_network_without_one_kind_of_halves_has_a_table(
    tmp_path: Path, layers: tuple[LayerShape, ...]
) -> None:
    """What there is not in any layer has the width 0 alone, and costs nothing."""
    encoder = WordPieceEncoder(toy_tokenizer().to_str().encode(), max_length=24)
    texts = [text for text, _ in toy_texts(60)]
    shape = replace(random_network().shape, layers=layers)
    table = measure_table(
        shape, export_onnx, "fp32", encoder, texts, TablePlan(networks=6, seconds=0.1), lambda *_: None
    )
    missing = table.attention_ms if layers[0].heads == 0 else table.feed_ms
    assert set(missing) == {0}
    assert table.p50_ms(layers) > 0
