"""Labels written piece by piece."""

from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from serve.standin.pieces import written

LABELS = st.lists(st.text(min_size=1, max_size=12), min_size=2, max_size=6, unique=True)


@given(LABELS, st.data())
def test_the_product_over_the_pieces_of_a_label_is_its_probability(
    labels: list[str], data: st.DataObject
) -> None:
    """Whatever the labels share, the tokens of one multiply to its probability, and spell the JSON object."""
    weights = data.draw(st.lists(st.floats(0.01, 1), min_size=len(labels), max_size=len(labels)))
    probabilities = [weight / sum(weights) for weight in weights]
    chosen = data.draw(st.integers(0, len(labels) - 1))

    content, tokens = written("intent", labels, probabilities, chosen, 20)

    assert json.loads(content) == {"intent": labels[chosen]}
    product = math.exp(sum(token["logprob"] for token in tokens))
    assert math.isclose(product, probabilities[chosen], rel_tol=1e-6)


def test_alternatives_of_a_token_are_what_other_labels_go_on_with() -> None:
    """Where two labels part, both ways are told with their shares."""
    _, tokens = written("label", ["cash", "card"], [0.25, 0.75], 1, 5)

    first = tokens[3]
    assert [(one["token"], round(math.exp(one["logprob"]), 6)) for one in first["top_logprobs"]] == [
        ("card", 0.75),
        ("cash", 0.25),
    ]
