"""A table is measured, and networks are pruned to a latency by it, each from the one before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.learning.training import predict
from compress.networks.cut import shrink
from compress.networks.models import load_network
from compress.networks.network import Classifier, LayerShape
from compress.pruning.budget import Allocation
from compress.pruning.latency import (
    best_within,
    divergence,
    losses_between,
    probed_widths,
    prune_to_latency,
)
from compress.pruning.latency_table import TABLE, LatencyTable
from compress.pruning.stitch import halves_of, put_together
from compress.pruning.table_step import table_step
from compress.recipes.data_part import Split
from compress.recipes.recipe import Target
from compress.steps import Context
from compress.store import Finished
from contract.errors import RecipeError
from contract.files import read_json, write_json
from tests.compress.conftest import random_network
from tests.compress.learning.test_training import toy_tokens
from tests.compress.networks.test_network import batch
from tests.compress.toy_steps import finished_network, toy_context, toy_dataset

PART = {
    "kind": "latency", "name": "fast", "parent": "teacher",
    "texts": 32, "trials": 4, "training": {"epochs": 0, "precision": "fp32"},
}  # fmt: skip
GRID = (0, 16, 32, 48)


def toy_table() -> LatencyTable:
    """Return a table on which a head takes 0.1 ms, 16 neurons 0.2 ms, and all else 0.1 ms."""
    return LatencyTable(
        precision="fp32",
        threads=1,
        layers=3,
        lengths=(9,) * 10,
        fixed_ms=(0.1,) * 10,
        attention_ms={heads: (0.1 * heads,) * 10 for heads in range(5)},
        feed_ms={neurons: (neurons / 80,) * 10 for neurons in GRID},
    )


def finished_table(folder: Path) -> Finished:
    """Write the toy table as a step that is done."""
    folder.mkdir()
    write_json(folder / TABLE, toy_table().to_json())
    return Finished(folder.name, folder.name, folder, {}, {}, {})


def with_config(context: Context, **more: object) -> Context:
    """Return the context of a step with more settings."""
    return replace(context, step=replace(context.step, config={**context.step.config, **more}))


def test_every_speed_up_starts_from_the_one_before(tmp_path: Path) -> None:
    """Two and four times as fast as the first parent by the table, the second a part of the first."""
    origin = finished_network(tmp_path / "teacher", random_network())
    table, before = finished_table(tmp_path / "fast.table"), origin
    whole_ms = toy_table().p50_ms((LayerShape(4, 48),) * 3)
    widths = [[[4, 48]] * 3]
    for speed_up in (2.0, 4.0):
        part = {**PART, "name": "fast"}
        place = tmp_path / f"{speed_up:g}"
        place.mkdir()
        context = toy_context(place, part, toy_dataset(), parent=before, origin=origin, table=table)
        result = prune_to_latency(with_config(context, speed_up=speed_up))
        assert result["speed_up"] == speed_up
        assert 0.6 * whole_ms / speed_up < result["latency_ms"] <= whole_ms / speed_up
        assert np.isfinite(result["untrained_divergence"])
        made = load_network(context.folder)
        assert isinstance(made, Classifier)
        assert [[x.heads, x.neurons] for x in made.shape.layers] == result["widths"]
        widths.append(result["widths"])
        before = Finished("fast", "fast", context.folder, {}, result, {})
    assert (np.array(widths[1]) <= np.array(widths[0])).all()
    assert (np.array(widths[2]) <= np.array(widths[1])).all()


def test_training_moves_the_network_and_not_its_parent(tmp_path: Path) -> None:
    """What is pruned learns; the parent's file and the untrained divergence are as without training."""
    found = {}
    for epochs in (0, 1):
        place = tmp_path / str(epochs)
        origin = finished_network(place / "teacher", random_network())
        part = {**PART, "training": {"epochs": epochs, "precision": "fp32", "learning_rate": 0.003}}
        table = finished_table(place / "fast.table")
        context = toy_context(place, part, toy_dataset(), parent=origin, origin=origin, table=table)
        result = prune_to_latency(with_config(context, speed_up=2.0))
        found[epochs] = (result, load_network(context.folder))
    assert found[0][0] == found[1][0]
    pair = [network.state_dict()["words.weight"] for _, network in found.values()]
    assert not torch.equal(*pair)
    assert torch.equal(pair[0], random_network().state_dict()["words.weight"])


def test_what_cannot_be_as_fast_is_refused(tmp_path: Path) -> None:
    """A speed-up beyond the fixed part of the latency is refused with a hint."""
    origin = finished_network(tmp_path / "teacher", random_network())
    table = finished_table(tmp_path / "fast.table")
    context = toy_context(tmp_path, PART, toy_dataset(), parent=origin, origin=origin, table=table)
    with pytest.raises(RecipeError, match="smaller speed_ups"):
        prune_to_latency(with_config(context, speed_up=1000.0))


@pytest.mark.parametrize("precision", ["int8-dynamic", "int8-static"])
def test_the_table_step_writes_what_the_next_steps_read(tmp_path: Path, precision: str) -> None:
    """A table of the parent's widths in the part's precision, with its own check beside it."""
    origin = finished_network(tmp_path / "teacher", random_network())
    context = toy_context(tmp_path, PART, toy_dataset(), parent=origin)
    target = {"threads": 1, "provider": "cpu", "lengths": "validation"}
    result = table_step(with_config(context, target=target, precision=precision))
    table = LatencyTable.from_json(read_json(context.folder / TABLE))
    assert table.precision == result["precision"] == precision
    assert result["latency_ms"] == table.p50_ms((LayerShape(4, 48),) * 3)
    assert result["worst_relative_error"] == table.worst_relative_error > 0


@pytest.mark.parametrize("lengths", ["validation", "certify", "test"])
def test_a_table_never_sees_the_test_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lengths: Split
) -> None:
    """Measured for the lengths of `test`, a table has those of validation: it decides widths."""
    data = toy_dataset(validation=20)
    data = replace(data, split=(*data.split[:-10], *("test",) * 10))
    timed: list[str] = []

    def spy(*given: Any, **_: Any) -> LatencyTable:
        timed.extend(given[4])
        return toy_table()

    monkeypatch.setattr("compress.pruning.table_step.measure_table", spy)
    origin = finished_network(tmp_path / "teacher", random_network())
    context = toy_context(tmp_path, PART, data, parent=origin)
    target = Target(lengths=lengths).for_choices()
    table_step(with_config(context, target=target, precision="fp32"))
    assert tuple(timed) == data.of("validation").texts


def test_put_together_from_whole_halves_is_the_network(network: Classifier) -> None:
    """All halves at their full width are the network; at no width, only biases and the rest are left."""
    tokens, _ = toy_tokens(40)
    halves = halves_of(network, tokens, GRID)
    assert [half.removal.widths for half in halves[:2]] == [(0, 1, 2, 3, 4), GRID]
    whole = put_together(network, halves, [4, 3] * 3)
    assert torch.equal(whole(*batch(network)), network(*batch(network)))
    nothing = put_together(network, halves, [0] * 6)
    assert nothing.shape.layers == (LayerShape(0, 0),) * 3
    again = halves_of(nothing, tokens, GRID)
    assert [half.removal.widths for half in again] == [(0,)] * 6
    same = put_together(nothing, again, [0] * 6)
    assert torch.equal(same(*batch(network)), nothing(*batch(network)))


@pytest.mark.parametrize("emptied", [[0], [1], [2, 3, 4], [5], [0, 5], [1, 3]])
def test_whole_halves_go_as_when_they_are_cut(network: Classifier, emptied: list[int]) -> None:
    """Emptied halves leave the same network whichever way they are emptied.

    Also several in a row, or after one that was missing before.
    """
    tokens, _ = toy_tokens(40)
    with torch.no_grad():
        for at in emptied:
            layer = network.layers[at // 2]
            (layer.narrow if at % 2 else layer.attention.output).weight.zero_()
    heads = [np.arange(0 if 2 * i in emptied else 4) for i in range(3)]
    neurons = [np.arange(0 if 2 * i + 1 in emptied else 48) for i in range(3)]
    cut = shrink(network, heads, neurons, tokens)
    halves = halves_of(network, tokens, GRID)
    choice = [0 if at in emptied else len(half.removal.widths) - 1 for at, half in enumerate(halves)]
    made = put_together(network, halves, choice)
    assert made.shape == cut.shape
    np.testing.assert_allclose(predict(made, tokens), predict(cut, tokens), atol=1e-4)
    first = put_together(network, halves, [0 if at == emptied[0] else choice[at] or -1 for at in range(6)])
    later = halves_of(first, tokens, GRID)
    again = put_together(first, later, [0 if at in emptied else -1 for at in range(6)])
    assert again.shape == cut.shape
    near = np.abs(predict(again, tokens) - predict(cut, tokens)).mean()
    assert near < 0.1 * predict(cut, tokens).std()


def test_updated_halves_answer_nearer_than_cut_ones(network: Classifier) -> None:
    """A network of updated weights stays nearer to the whole than one with the same parts cut out."""
    tokens, _ = toy_tokens(80)
    halves = halves_of(network, tokens, GRID)
    choice = [2, 2] * 3
    updated = put_together(network, halves, choice)
    cut = put_together(network, halves, choice)
    for half, number in zip(halves, choice, strict=True):
        kept, layer, source = half.removal.kept[number], cut.layers[half.layer], network.layers[half.layer]
        if half.side == "feed":
            layer.narrow.weight.data = source.narrow.weight.data[:, kept]
            layer.narrow.bias.data = source.narrow.bias.data
    whole = predict(network, tokens)
    far = [np.abs(predict(made, tokens) - whole).mean() for made in (updated, cut)]
    assert far[0] < far[1]


def test_the_search_keeps_to_the_latency_and_the_loss(network: Classifier) -> None:
    """The network found is within the latency, and no trial lost less."""
    tokens, _ = toy_tokens(60)
    halves = halves_of(network, tokens, GRID)
    losses: dict[Allocation, float] = {}
    loss_of = divergence(network, halves, tokens)

    def spy(allocation: Allocation) -> float:
        losses[allocation] = loss_of(allocation)
        return losses[allocation]

    found = best_within(halves, toy_table(), 1.5, spy, trials=6, seed=0, report=lambda *_: None)
    layers = put_together(network, halves, found.allocation).shape.layers
    assert toy_table().p50_ms(layers) <= 1.5
    assert losses[(4, 3) * 3] == pytest.approx(0, abs=1e-6)
    within = [
        loss
        for choice, loss in losses.items()
        if toy_table().p50_ms(put_together(network, halves, choice).shape.layers) <= 1.5
    ]
    assert losses[found.allocation] == found.score == min(within)


def test_losses_between_probes_follow_the_error() -> None:
    """Probed losses are kept, the order of errors is the order of losses, and no error is no loss."""
    errors = np.array([1.0, 0.5, 0.4, 0.2, 0.1, 0.0])
    found = losses_between(errors, (0, 2), [2.0, 0.1])
    assert found[[0, 2]] == pytest.approx([2.0, 0.1])
    assert found[3] == pytest.approx(0.1 / 4)
    assert found[-1] == 0
    assert (np.diff(found) < 0).all()
    misleading = losses_between(errors, (0, 1), [0.1, 0.3])
    assert (np.diff(misleading) <= 0).all()
    assert (losses_between(np.zeros(1), (), []) == 0).all()


@given(count=st.integers(1, 30))
def test_probes_are_fewer_than_widths(count: int) -> None:
    """At most four widths are tried, never the whole, nothing always."""
    probed = probed_widths(count)
    assert len(probed) <= min(4, count - 1)
    assert set(probed) <= set(range(count - 1))
    assert count == 1 or probed[0] == 0
