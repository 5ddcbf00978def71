"""Every architecture, made tiny with random weights: trained, exported, verified, quantized and served.

Run: python -m bench.architectures [KIND ...]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from compress.networks.opening import open_model
from compress.networks.weights import why_foreign
from compress.pipeline import run_pipeline
from compress.recipes.recipe import parse_recipe
from contract.errors import SluiceError
from runtime.load import load_variant
from tests.compress.conftest import toy_texts, write_csv
from tests.compress.networks.tiny import FOREIGN, OWN, tiny_model

TEXTS = 240
LEARNING = {"epochs": 1, "learning_rate": 0.002, "precision": "fp32"}
TEXT = "the goal of the match"


@dataclass(frozen=True)
class Outcome:
    """What came of one architecture.

    Attributes:
        kind: `model_type` of its configuration.
        parameters: of the tiny model.
        max_logit_error: largest difference between torch's logits and ONNX Runtime's.
        label_agreement: share of texts that both give one label.
        int8: the same share for dynamic INT8 against torch; None where there is nothing to quantize.
        batching: how it is served: `single` where padding changes answers.
        own: whether our own network holds it, so that it can be pruned.
        label: that the served variant gave one text.
    """

    kind: str
    parameters: int
    max_logit_error: float
    label_agreement: float
    int8: float | None
    batching: str
    own: bool
    label: str


def try_architecture(kind: str, folder: Path) -> Outcome:
    """Make, train, export, verify, quantize and serve a tiny model. Raises SluiceError where a step fails."""
    tiny_model(folder / "model", kind)
    write_csv(folder / "data.csv", toy_texts(TEXTS))
    raw = {
        "name": "tiny",
        "data": {"file": "data.csv"},
        "teacher": {"weights": "model", "max_length": 24, "training": LEARNING},
        "target": {"calls": 20, "seconds": 0.05},
        "variants": [{"name": "int8", "kind": "quantize", "parent": "teacher"}],
    }
    whole = parse_recipe(raw, folder=folder)
    int8: float | None
    try:
        family = run_pipeline(whole, folder / "family")
        checked = family.variant("int8").verification
        int8 = None if checked is None else checked.label_agreement
    except SluiceError as problem:
        if "nothing to quantize" not in str(problem):
            raise
        family = run_pipeline(whole.model_copy(update={"variants": ()}), folder / "family")
        int8 = None
    teacher = family.variant("teacher")
    found = load_variant(folder / "family", family, "teacher").logits([TEXT])
    assert teacher.verification is not None
    return Outcome(
        kind=kind,
        parameters=teacher.parameters or 0,
        max_logit_error=teacher.verification.max_logit_error,
        label_agreement=teacher.verification.label_agreement,
        int8=int8,
        batching=teacher.batching,
        own=why_foreign(open_model(str(folder / "model")).config) is None,
        label=family.labels[int(found[0].argmax())],
    )


def row_of(found: Outcome) -> str:
    """Return a row of the table in docs/teachers.md."""
    int8 = "nothing to quantize" if found.int8 is None else f"{found.int8:.1%}"
    pruned = "heads, neurons, layers, states, word pieces, single weights" if found.own else "single weights"
    cells = (
        found.kind, f"{found.parameters:,}", f"{found.max_logit_error:.1e}", f"{found.label_agreement:.1%}",
        int8, found.batching, pruned,
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    """Print the table; 1 where an architecture fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", default=[*OWN, *FOREIGN])
    failed = 0
    print(
        "| architecture | parameters (tiny) | torch against ONNX, logits | labels agree | INT8 agrees "
        "| served | can be pruned |\n| --- " + "| --- " * 6 + "|"
    )
    for kind in parser.parse_args().kinds:
        with tempfile.TemporaryDirectory() as folder:
            try:
                print(row_of(try_architecture(kind, Path(folder))), flush=True)
            except SluiceError as problem:
                failed += 1
                print(f"| {kind} | fails: {problem} | | | | | |", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
