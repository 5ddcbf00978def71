"""The stand-in asked by the client that stages and teachers stand on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from contract.remote import ChatOptions, RemoteModel
from runtime.fake_family import LABELS
from runtime.remote.client import SyncClient
from serve.standin.answerer import Answerer
from serve.standin.server import Running

TEXTS = [f"{label}: story {n}" for n in range(4) for label in LABELS]


def test_log_probabilities_of_a_chat_give_the_familys_own(family: Path, standin: Running) -> None:
    """What a client makes of tokens is what the variant behind them says of its labels."""
    model = RemoteModel(
        form="chat",
        url=f"{standin.url}/v1",
        model="big",
        usd_per_call=3e-5,
        chat=ChatOptions(top_logprobs=20),
    )
    client = SyncClient(model, LABELS)
    answered = client.ask(TEXTS)
    client.close()

    own = Answerer.load(family)
    known = np.array([own.probabilities(text, LABELS) for text in TEXTS])
    assert answered.probabilities is not None
    assert list(answered.labels) == known.argmax(1).tolist()
    chosen = np.arange(len(TEXTS)), known.argmax(1)
    np.testing.assert_allclose(answered.probabilities[chosen], known[chosen], atol=0.02)


def test_a_forced_tool_is_asked_several_times(standin: Running) -> None:
    """Without log-probabilities the agreement of repeats stands for them."""
    model = RemoteModel(
        form="chat", url=f"{standin.url}/v1", model="big", usd_per_call=3e-5, repeats=5,
        chat=ChatOptions(constrain="tool", logprobs=False),
    )  # fmt: skip
    client = SyncClient(model, LABELS)
    answered = client.ask(TEXTS[:3])
    client.close()

    assert answered.probabilities is not None
    assert set(np.round(5 * answered.probabilities.ravel()).astype(int)) <= {0, 1, 2, 3, 4, 5}
