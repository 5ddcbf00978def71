"""The twin of a student: the same network from random weights, taught by labels alone.

What the student gains over its twin is what distillation and the parent's weights brought.
"""

from __future__ import annotations

import torch
from pydantic import TypeAdapter
from torch import nn

from compress.datasets.data import DATA, read_dataset
from compress.encoders import encoder_of, hand_on
from compress.learning.teacher import finish_network, learn_labels
from compress.networks.models import Network, load_network
from compress.recipes.data_part import EXTRA
from compress.recipes.learning_parts import Training
from compress.recipes.parts import CnnPart, DistilPart
from compress.steps import Context, Result

SPREAD = 0.02


def train_twin(context: Context) -> Result:
    """Train the network of the step's input `like` from random weights on labelled texts, and write it.

    Training settings, texts and seed are the student's; altered copies and unlabelled texts have no labels to
    learn from and are left out. The twin goes over its fewer texts more often, so that both take as many
    optimizer steps, to half an epoch of the twin; the result's `epochs` says how often.
    """
    part: DistilPart | CnnPart = TypeAdapter(DistilPart | CnnPart).validate_python(
        context.step.config["variant"]
    )
    like = context.inputs["like"]
    network, encoder = load_network(like.folder), encoder_of(like)
    randomize(network, seed=context.recipe.seed)
    data = read_dataset(context.inputs["data"].file(DATA)).of("train", *([EXTRA] if part.extra else []))
    epochs = equal_epochs(part.training, int(like.result["taught_texts"]), len(data))
    learn_labels(context, network, encoder, data, part.training.model_copy(update={"epochs": epochs}))
    return {
        **finish_network(context, network, hand_on(like, context.folder)),
        "taught_texts": len(data),
        "epochs": epochs,
        "summary": f"{epochs} epochs of {len(data):,} labelled texts",
    }


def equal_epochs(training: Training, taught: int, own: int) -> int:
    """Return how many epochs over `own` texts take as many steps as the training's over `taught` texts."""
    size = training.batch_size
    return round(training.epochs * -(-taught // size) / -(-own // size))


def randomize(network: Network, *, seed: int) -> None:
    """Give a network random weights: N(0, SPREAD^2) for matrices and tables, as BERT starts, 0 for biases."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.LayerNorm):
                module.reset_parameters()
                continue
            for name, parameter in module.named_parameters(recurse=False):
                if name == "bias":
                    parameter.zero_()
                else:
                    parameter.normal_(std=SPREAD)
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx].zero_()
