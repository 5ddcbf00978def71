"""Learning from a teacher: what is read, whose answers count, and in which order."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.datasets.data import DATA, Dataset, read_dataset
from compress.encoders import TOKENIZER
from compress.learning.answers import ask, network_of
from compress.learning.augment import Neighbours, altered_copies, similar_words
from compress.learning.imitate import Imitation, spread_layers
from compress.learning.training import Guide, fit, soft_loss
from compress.networks.models import Examples, Network, Tokens
from compress.networks.network import Classifier
from compress.recipes.data_part import EXTRA, UNLABELLED
from compress.recipes.learning_parts import Augmentation, Learner
from compress.recipes.parts import NgramPart
from compress.steps import Context
from compress.store import Finished
from contract.errors import RecipeError
from runtime.api import Encoder


@dataclass(frozen=True)
class TransferSet:
    """N texts to learn from.

    Attributes:
        texts: [N].
        targets: [N] class indices; -1 where only the teacher's answer counts.
        answers: [N, C] logits of the teacher; a row of NaN where it has no answer, which then has a target.
        asked: the texts as the teacher reads them; None where it cannot be run here.
        encoder: hash of the encoder that the teacher reads with, "" where it cannot be run here.
        teacher: its network; None where it cannot be run here.
    """

    texts: tuple[str, ...]
    targets: NDArray[np.int64]
    answers: NDArray[np.float32]
    asked: Examples | None
    encoder: str
    teacher: Network | None


def learn_from(context: Context, student: Network, encoder: Encoder, part: Learner) -> int:
    """Train a student in place on training texts and its teacher's answers to them; return how many texts.

    The teacher is the step's input `teacher`, else `origin`, else `parent`; it reads texts with its own
    encoder, and is asked once for every text. A chain of parts, each the teacher of the next, is progressive
    distillation through assistants (Mirzadeh et al. 2020).

    Args:
        context: of the step.
        student: of the same labels.
        encoder: the student's.
        part: what to learn from, and how.

    Raises:
        RecipeError: when hidden states or attentions are to be imitated that one of them does not have, or
            the layer map names layers that are not there.
        SluiceError: when the loss is not finite.
    """
    role = next(role for role in ("teacher", "origin", "parent") if role in context.inputs)
    transfer = prepare_transfer_set(context, context.inputs[role], part, precision=part.training.precision)
    alike = transfer.asked is not None and encoder.sha256 == transfer.encoder
    examples = (
        transfer.asked if alike and transfer.asked is not None else student.read(encoder, transfer.texts)
    )
    fit(
        student,
        examples,
        soft_loss(transfer.targets, transfer.answers, part.distillation, part.training.label_smoothing),
        part.training,
        seed=context.recipe.seed,
        report=context.update,
        guide=Guide(
            order=easiest_first(transfer.answers) if part.curriculum else None,
            companion=_imitation(student, examples, transfer, part, context.recipe.seed),
        ),
        name=context.step.name,
    )
    return len(transfer.texts)


def prepare_transfer_set(
    context: Context, teacher: Finished, part: Learner | NgramPart, *, precision: str
) -> TransferSet:
    """Return the texts that a part learns from, and a teacher's answers to them.

    These are the training texts, with `extra` also the extra and unlabelled ones, and altered copies of all
    of them where the part asks for copies. No copy is a text of any split.
    """
    everything = read_dataset(context.inputs["data"].file(DATA))
    data = everything.of("train", *([EXTRA, UNLABELLED] if part.extra else []))
    copies: tuple[str, ...] = ()
    if part.augment is not None:
        copies = altered_copies(
            data.texts,
            part.augment,
            seed=context.recipe.seed,
            neighbours=_neighbours(data, part.augment, teacher, context),
            held_out=everything.texts,
        )
    texts = (*data.texts, *copies)
    targets = np.append(data.targets, np.full(len(copies), -1, dtype=np.int64))
    context.update(0.0, f"asking the teacher for {len(texts)} answers")
    found = ask(teacher, texts, precision=precision)
    useful = np.flatnonzero((targets >= 0) | ~np.isnan(found.logits[:, 0]))
    if len(useful) < len(texts):
        # What has neither a label nor an answer teaches nothing.
        texts, targets = tuple(texts[row] for row in useful), targets[useful]
        found = ask(teacher, texts, precision=precision)
    return TransferSet(
        texts=texts,
        targets=targets,
        answers=found.logits,
        asked=found.examples,
        encoder=found.encoder,
        teacher=found.network,
    )


def easiest_first(answers: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the rows of logits [N, C] from the largest to the smallest highest probability, NaN last."""
    scaled = answers - answers.max(axis=1, keepdims=True)
    return np.argsort(np.exp(scaled).sum(axis=1), kind="stable")


def _neighbours(
    data: Dataset, augment: Augmentation, teacher: Finished, context: Context
) -> Neighbours | None:
    if not augment.replace:
        return None
    network = network_of(teacher)
    if not isinstance(network, Classifier):
        raise RecipeError(
            f"variant {context.step.name!r}: augment.replace needs a teacher that is a transformer"
        )
    tokenizer = json.loads(teacher.file(TOKENIZER).read_bytes())
    return similar_words(data.texts, network.words.weight.detach().numpy(), tokenizer["model"]["vocab"])


def _imitation(
    student: Network, examples: Examples, transfer: TransferSet, part: Learner, seed: int
) -> Imitation | None:
    settings, teacher = part.distillation, transfer.teacher
    if not (settings.hidden_weight or settings.attention_weight):
        return None
    where = f"variant {part.name!r}: distillation"
    if not isinstance(student, Classifier) or not isinstance(teacher, Classifier):
        raise RecipeError(f"{where}: only a transformer can imitate the states of a transformer")
    if transfer.asked is None or not _same_pieces(examples, transfer.asked):
        raise RecipeError(
            f"{where}: the teacher reads texts in other word pieces, so their states cannot be compared",
            hint="leave hidden_weight and attention_weight at 0, or take a teacher with the same tokenizer",
        )
    depth, layers = len(student.shape.layers), len(teacher.shape.layers)
    layer_map = settings.layer_map or spread_layers(depth, layers)
    if len(layer_map) != depth:
        raise RecipeError(f"{where}.layer_map names {len(layer_map)} layers, the student has {depth}")
    for layer in layer_map:
        if not 0 <= layer < layers:
            raise RecipeError(f"{where}.layer_map: no layer {layer}; the teacher has 0 to {layers - 1}")
    return Imitation(student, teacher, transfer.asked, settings, layer_map, seed=seed)


def _same_pieces(mine: Examples, theirs: Examples) -> bool:
    """Return whether two readings of the same texts are one but for the numbers that pieces have.

    So they are with one tokenizer, and with one and a copy of it that has fewer pieces, where no text misses
    those that are gone.
    """
    if not isinstance(mine, Tokens) or not isinstance(theirs, Tokens):
        return False
    if not np.array_equal(mine.lengths, theirs.lengths):
        return False
    pairs = np.unique(np.stack([mine.real, theirs.real]), axis=1)
    return all(len(np.unique(side)) == pairs.shape[1] for side in pairs)
