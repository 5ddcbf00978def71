"""What a student starts from: layers of its parent, other published weights, or chance."""

from __future__ import annotations

from dataclasses import dataclass

from compress.datasets.data import DATA, read_dataset
from compress.encoders import encoder_spec, write_tokenizer
from compress.learning.answers import is_recorded
from compress.learning.teacher import COMPARED, parent_classifier, parent_encoder
from compress.learning.twin import randomize
from compress.networks.foreign import ForeignNetwork
from compress.networks.models import load_network
from compress.networks.network import Architecture, Classifier, LayerShape
from compress.networks.tokenizer import served_tokenizer
from compress.networks.weights import network_from, read_bundle
from compress.onnx_graphs.network import GraphNetwork
from compress.recipes.parts import RANDOM, DistilPart
from compress.steps import Context
from contract.errors import RecipeError
from contract.family import EncoderSpec
from runtime.api import Encoder
from runtime.encoders import load_encoder


@dataclass(frozen=True)
class Start:
    """A network to begin with, and how it reads texts. `sized`: it already has the widths asked for."""

    network: Classifier
    encoder: Encoder
    spec: EncoderSpec
    sized: bool = False
    notes: tuple[str, ...] = ()


def start_of(context: Context, part: DistilPart) -> Start:
    """Return what a student starts from; its tokenizer's file is put into the step's folder.

    Raises:
        RecipeError: weights that our own network cannot hold, or a parent that has no layers to give.
    """
    named = [item for item in context.recipe.variants if item.name == part.name]
    weights = next((item.weights for item in named if isinstance(item, DistilPart)), part.weights)
    if weights is None:
        network = parent_classifier(context)
        return Start(network, *parent_encoder(context))
    if weights == RANDOM:
        return _random(context, part)
    labels = read_dataset(context.inputs["data"].file(DATA)).labels
    texts = read_dataset(context.inputs["data"].file(DATA)).of("train").texts[:COMPARED]
    bundle = read_bundle(weights)
    network, head = network_from(bundle, labels, seed=context.recipe.seed, dropout=part.training.dropout)
    parent = context.inputs["parent"]
    wanted = parent.result["max_length"] if is_recorded(parent) else encoder_spec(parent).max_length
    length = min(wanted or network.shape.longest, network.shape.longest)
    served = served_tokenizer(bundle.folder, rows=network.shape.vocabulary, max_length=length, texts=texts)
    spec = write_tokenizer(context.folder, served.content, max_length=length)
    return Start(network, load_encoder(context.folder, spec), spec, notes=(*served.notes, *head.notes))


def _random(context: Context, part: DistilPart) -> Start:
    parent = load_network(context.inputs["parent"].folder)
    if not isinstance(parent, Classifier | ForeignNetwork | GraphNetwork):
        raise RecipeError(f"variant {part.name!r}: its parent does not read word pieces as transformers do")
    encoder, spec = parent_encoder(context)
    hidden, heads, neurons = part.hidden or 0, part.heads or 1, part.neurons or 0
    shape = Architecture(
        vocabulary=parent.shape.vocabulary,
        hidden=hidden,
        head_size=hidden // heads,
        positions=min(parent.shape.longest, spec.max_length or parent.shape.longest),
        layers=(LayerShape(heads, neurons),) * len(part.layers),
        classes=parent.classes,
        dropout=part.training.dropout,
        pad_id=parent.shape.pad_id,
    )
    network = Classifier(shape)
    randomize(network, seed=context.recipe.seed)
    return Start(network, encoder, spec, sized=True)
