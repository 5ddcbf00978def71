"""The teacher: pre-trained weights fine-tuned on the recipe's data."""

from __future__ import annotations

from typing import Any

from compress.datasets.data import DATA, Dataset, read_dataset
from compress.encoders import encoder_of, hand_on, write_tokenizer
from compress.learning.training import fit, hard_loss
from compress.networks.heads import Head
from compress.networks.models import Network, load_network
from compress.networks.network import Classifier
from compress.networks.refusals import unrun_code
from compress.networks.tokenizer import kept_length, served_tokenizer
from compress.networks.weights import Bundle, network_from, read_bundle, why_foreign
from compress.recipes.learning_parts import Training
from compress.steps import Context, Result
from contract.errors import RecipeError
from contract.family import EncoderSpec
from runtime.api import Encoder
from runtime.encoders import load_encoder

# Training texts that two tokenizers are compared on, beside the awkward ones.
COMPARED = 64


def train_teacher(context: Context) -> Result:
    """Fine-tune the weights of the recipe, write the network and its tokenizer.

    What our own network holds becomes one of it; any other classifier that transformers loads stays as it is.

    Raises:
        RecipeError: weights or a tokenizer that cannot be read, or nothing to train a new head with.
    """
    part = context.recipe.teacher
    data = read_dataset(context.inputs["data"].file(DATA)).of("train")
    bundle = read_bundle(part.weights)
    told, network, head, spec = _read(context, bundle, data)
    if part.training.epochs == 0 and head.order is None:
        raise RecipeError(
            "teacher.training.epochs is 0, but the weights have no trained head for these labels",
            where=part.weights,
            hint=head.hint or f"labels of the data: {', '.join(data.labels[:10])}",
        )
    code = unrun_code(bundle.config)
    told = told if code is None else (code, *told)
    notes = (*bundle.folder.notes, *told, *head.notes) if head.order is None else (*told, *head.notes)
    for note in notes:
        context.update(0.0, note)
    learn_labels(context, network, load_encoder(context.folder, spec), data, part.training)
    return {**finish_network(context, network, spec), "notes": list(notes)}


def _read(
    context: Context, bundle: Bundle, data: Dataset
) -> tuple[tuple[str, ...], Network, Head, EncoderSpec]:
    """Return notes, network, head and encoder of the recipe's weights."""
    part, seed, source = context.recipe.teacher, context.recipe.seed, bundle.source
    settings: dict[str, Any] = {
        "seed": seed, "dropout": part.training.dropout, "said": part.labels
    }  # fmt: skip
    if why_foreign(bundle.config) is None:
        network, head = network_from(bundle, data.labels, **settings)
        rows, longest, reads_types = network.shape.vocabulary, network.shape.longest, False
    else:
        from compress.networks.foreign_making import foreign_network

        network, head = foreign_network(bundle, data.labels, **settings)
        rows, longest, reads_types = network.shape.vocabulary, network.shape.longest, True
    kept, notes = kept_length(part, longest, bundle.folder.asked_length, source)
    served = served_tokenizer(bundle.folder, rows=rows, max_length=kept, texts=data.texts[:COMPARED])
    types = served.token_types and reads_types
    if types:
        network, head = foreign_network(bundle, data.labels, **settings, token_types=True)
    spec = write_tokenizer(context.folder, served.content, max_length=kept, token_types=types)
    return (*notes, *served.notes), network, head, spec


def learn_labels(
    context: Context, network: Network, encoder: Encoder, data: Dataset, training: Training
) -> None:
    """Train a network in place on the labels of texts. Raises SluiceError when the loss is not finite."""
    fit(
        network,
        network.read(encoder, data.texts),
        hard_loss(data.targets, training.label_smoothing),
        training,
        seed=context.recipe.seed,
        report=context.update,
        name=context.step.name,
    )


def finish_network(context: Context, network: Network, encoder: EncoderSpec) -> Result:
    """Write a trained network into the step's folder and return what the next steps ask of it."""
    network.save(context.folder)
    return {**network.summary(), "encoder": encoder.model_dump(mode="json")}


def parent_encoder(context: Context) -> tuple[Encoder, EncoderSpec]:
    """Return the parent's encoder and its record; its file is copied to this step."""
    parent = context.inputs["parent"]
    return encoder_of(parent), hand_on(parent, context.folder)


def parent_classifier(context: Context) -> Classifier:
    """Return the parent's network. Raises RecipeError when it is not a transformer."""
    parent = load_network(context.inputs["parent"].folder)
    if not isinstance(parent, Classifier):
        raise RecipeError(
            f"variant {context.step.name!r}: its parent is not a transformer, which this technique needs"
        )
    return parent
