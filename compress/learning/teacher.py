"""The teacher: pre-trained weights fine-tuned on the recipe's data."""

from __future__ import annotations

from compress.datasets.data import DATA, Dataset, read_dataset
from compress.encoders import encoder_of, hand_on, write_tokenizer
from compress.learning.training import fit, hard_loss
from compress.networks.models import Network, load_network
from compress.networks.network import Classifier
from compress.networks.weights import network_from, read_bundle
from compress.recipes.learning_parts import Training
from compress.steps import Context, Result
from contract.errors import RecipeError
from contract.family import EncoderSpec
from runtime.api import Encoder
from runtime.encoders import load_encoder


def train_teacher(context: Context) -> Result:
    """Fine-tune the weights of the recipe, write the network and its tokenizer.

    Raises:
        RecipeError: weights that cannot be read, or none to train a new head with.
    """
    part = context.recipe.teacher
    data = read_dataset(context.inputs["data"].file(DATA)).of("train")
    bundle = read_bundle(part.weights)
    network, has_head = network_from(
        bundle, data.labels, seed=context.recipe.seed, dropout=part.training.dropout
    )
    limit = network.shape.longest
    if part.max_length > limit:
        raise RecipeError(
            f"teacher.max_length is {part.max_length}, these weights know {limit} positions",
            where=part.weights,
        )
    if part.training.epochs == 0 and not has_head:
        raise RecipeError(
            "teacher.training.epochs is 0, but the weights have no trained head for these labels",
            where=part.weights,
            hint=f"labels of the data: {', '.join(data.labels[:10])}",
        )
    spec = write_tokenizer(context.folder, bundle.tokenizer, max_length=part.max_length)
    learn_labels(context, network, load_encoder(context.folder, spec), data, part.training)
    return finish_network(context, network, spec)


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
