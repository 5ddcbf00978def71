"""The teacher: pre-trained weights fine-tuned on the recipe's data."""

from __future__ import annotations

from compress.data import DATA, read_dataset
from compress.network import Classifier, load_network, parameters_of, save_network
from compress.steps import Context, Result
from compress.training import Tokens, fit, hard_loss
from compress.weights import TOKENIZER, network_from, read_bundle
from contract.errors import RecipeError
from contract.files import write_bytes
from runtime.wordpiece import WordPieceEncoder


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
    limit = network.shape.positions - network.shape.position_offset
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
    write_bytes(context.folder / TOKENIZER, bundle.tokenizer)
    tokens = Tokens.of(WordPieceEncoder(bundle.tokenizer, max_length=part.max_length).encode(data.texts))
    loss = hard_loss(data.targets, part.training.label_smoothing)
    fit(network, tokens, loss, part.training, seed=context.recipe.seed, report=context.update)
    return finish_network(context, network, max_length=part.max_length)


def finish_network(context: Context, network: Classifier, *, max_length: int) -> Result:
    """Write a trained network into the step's folder and return what the next steps ask of it."""
    save_network(context.folder, network)
    return {
        "max_length": max_length,
        "parameters": parameters_of(network),
        "widths": [[layer.heads, layer.neurons] for layer in network.shape.layers],
    }


def parent_network(context: Context) -> tuple[Classifier, WordPieceEncoder, int]:
    """Return the parent's network, its encoder, and its token limit; its tokenizer is copied to this step."""
    parent = context.inputs["parent"]
    tokenizer = parent.file(TOKENIZER).read_bytes()
    write_bytes(context.folder / TOKENIZER, tokenizer)
    max_length = int(parent.result["max_length"])
    return load_network(parent.folder), WordPieceEncoder(tokenizer, max_length=max_length), max_length
