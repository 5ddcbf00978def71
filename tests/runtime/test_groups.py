"""Texts of mixed lengths run in groups that pay little padding."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bench.gateway.padding import BATCH, padding
from runtime.onnx_model import groups_of_like_length


@given(st.lists(st.integers(1, 256), min_size=1, max_size=64), st.integers(1, 2048))
def test_every_text_runs_once_and_a_group_is_padded_by_a_seventh_at_most(
    lengths: list[int], most: int
) -> None:
    """Within the tokens that a run may have; a text beyond them runs alone."""
    each = np.array(lengths)
    groups = list(groups_of_like_length(each, most))
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(lengths)))
    for rows in groups:
        padded = len(rows) * int(each[rows].max())
        assert len(rows) == 1 or (padded <= most and padded <= 1.15 * int(each[rows].sum()))


def test_a_batch_of_mixed_lengths_is_spared_nearly_all_of_its_padding() -> None:
    """Padded to the longest, texts of 8 to 128 tokens cost 79% more than they hold; in groups under 5%."""
    lengths = np.random.default_rng(1).integers(8, 129, 4000)
    batches = [lengths[i : i + BATCH] for i in range(0, len(lengths), BATCH)]
    longest = sum(len(batch) * int(batch.max()) for batch in batches) / int(lengths.sum()) - 1
    assert longest > 0.7
    assert padding(batches) < 0.05
