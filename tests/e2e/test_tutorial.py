"""The tutorial, typed as it stands: every command of docs/tutorial.md, in order, on a small model."""

from __future__ import annotations

import json
import random
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification

from tests.e2e.conftest import REPOSITORY, Sluice, wait_ready
from tests.ports import free_port
from tests.support.pages import blocks

PAGE = REPOSITORY / "docs" / "tutorial.md"
TOPICS = {
    "account": ("password", "login", "email", "locked", "profile"),
    "billing": ("charged", "invoice", "refund", "card", "payment"),
    "delivery": ("parcel", "courier", "late", "tracking", "arrived"),
}
FILLERS = (
    "the", "my", "is", "i", "was", "please", "when", "this", "month", "again", "today", "not", "for", "on",
    "a", "you", "can", "it",
)  # fmt: skip
PADDED = 16


def _tickets(n: int) -> dict[str, str]:
    """Return n different texts; what a text is about is the topic with most of its words."""
    draw = random.Random(0)
    found: dict[str, str] = {}
    while len(found) < n:
        label = draw.choice(list(TOPICS))
        words = draw.choices(FILLERS, k=draw.randint(3, 7)) + draw.choices(
            TOPICS[label], k=draw.randint(1, 3)
        )
        draw.shuffle(words)
        found[" ".join(words)] = label
    return found


def _write_model(folder: Path, tickets: dict[str, str]) -> None:
    """Write a small BERT that was fine-tuned on some of the tickets, as `save_pretrained` leaves it."""
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *FILLERS,
        *(word for topic in TOPICS.values() for word in topic),
    ]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    torch.manual_seed(0)
    network = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(words), hidden_size=32, num_attention_heads=4, num_hidden_layers=2,
            intermediate_size=64, max_position_embeddings=64, hidden_dropout_prob=0.0,
            id2label=dict(enumerate(TOPICS)), label2id={name: i for i, name in enumerate(TOPICS)},
        )
    )  # fmt: skip
    tokenizer.enable_padding(length=PADDED)
    ids = torch.tensor([encoded.ids for encoded in tokenizer.encode_batch(list(tickets))])
    labels = torch.tensor([list(TOPICS).index(label) for label in tickets.values()])
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for step in range(80):
        rows = torch.arange(64) + 64 * step
        batch, known = ids[rows % len(ids)], labels[rows % len(ids)]
        network(input_ids=batch, attention_mask=(batch != 0).long(), labels=known).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    network.save_pretrained(folder)
    tokenizer.no_padding()
    tokenizer.save(str(folder / "tokenizer.json"))


@dataclass
class Reader:
    """Someone who types what the page says, in one folder, with ports of their own."""

    sluice: Sluice
    folder: Path
    port: int = field(default_factory=free_port)
    admin: int = field(default_factory=free_port)
    gateway: subprocess.Popen[str] | None = None

    def types(self, line: str) -> str:
        """Type one command, `sluice serve` in a terminal of its own, and return what it prints."""
        line = line.replace(":8000", f":{self.port}")
        if line.startswith("sluice serve "):
            command = [*line.split()[1:], "--port", str(self.port), "--admin-port", str(self.admin)]
            self.gateway = Sluice(self.sluice.executable, self.folder, self.sluice.mark).start(*command)
            wait_ready(self.gateway, f"http://127.0.0.1:{self.port}")
            return ""
        if line.startswith("sluice policy "):
            line += f" --admin-url http://127.0.0.1:{self.admin}"
        return self.sluice.shell(line, self.folder, timeout_s=300)

    def leaves(self) -> int | None:
        """Press Ctrl-C in the gateway's terminal and return its exit code."""
        if self.gateway is None:
            return None
        self.gateway.send_signal(signal.SIGINT)
        self.gateway.communicate(timeout=60)
        return self.gateway.returncode


@pytest.mark.e2e
@pytest.mark.ray
@pytest.mark.beside
def test_every_command_of_the_tutorial_works(alone: Sluice, tmp_path: Path) -> None:
    """A reader with a CSV and a model gets from the first command to a report and a rolled-back policy."""
    tickets = _tickets(1200)
    rows = "".join(f"{text},{label}\n" for text, label in tickets.items())
    (tmp_path / "tickets.csv").write_text(f"text,label\n{rows}")
    _write_model(tmp_path / "my-model", tickets)
    (recipe,) = blocks(PAGE, "yaml")
    (tmp_path / "recipe.yaml").write_text(recipe)

    lines = [line for block in blocks(PAGE, "sh") for line in block.splitlines()]
    typed = [line for line in lines if not line.startswith(("python -m venv", "pip install"))]
    assert len(lines) - len(typed) == 2
    reader, printed = Reader(alone, tmp_path), {}
    try:
        for line in typed:
            printed[line] = reader.types(line)
    finally:
        code = reader.leaves()
    assert code == 0
    assert alone.leftovers() == []

    (answer,) = (out for line, out in printed.items() if "/v1/classify" in line)
    assert json.loads(answer)["outputs"][0]["label"] == "billing"
    policy = json.loads((tmp_path / "policy.json").read_text())
    assert policy["status"] == "certified"
    assert (tmp_path / "report.html").stat().st_size > 10_000
    history = next(out for line, out in printed.items() if line == "sluice policy history")
    assert policy["version"][:12] in history
