"""The teacher of an image family: a network of any source, fine-tuned on the recipe's images."""

from __future__ import annotations

from compress.datasets.data import DATA, read_dataset
from compress.learning.teacher import finish_network, learn_labels
from compress.networks.image_models import ImageArchitecture, pretrained_network
from compress.networks.image_weights import EFFICIENTNET, EFFICIENTNET_IMAGES, image_fingerprint
from compress.recipes.parts import ImagePart
from compress.recipes.recipe import TeacherPart
from compress.steps import Context, Result
from contract.errors import RecipeError
from runtime.pixels import PixelEncoder, PixelOptions, pixel_spec


def train_image_teacher(context: Context) -> Result:
    """Fine-tune the network of the recipe on its training images.

    Raises:
        RecipeError: an unknown source, no image size, or nothing trained where no training is asked for.
    """
    part = context.recipe.teacher
    data = read_dataset(context.inputs["data"].file(DATA)).of("train")
    options = pixel_options_of(_image_of(part))
    shape = ImageArchitecture(
        source=part.weights,
        fingerprint=image_fingerprint(part.weights),
        classes=len(data.labels),
        channels=options.channels,
        height=options.height,
        width=options.width,
    )
    network, trained = pretrained_network(shape, seed=context.recipe.seed)
    if part.training.epochs == 0 and not trained:
        raise RecipeError(
            "teacher.training.epochs is 0, but the weights have no trained head for these labels",
            where=part.weights,
        )
    context.update(0.0, f"decoding {len(data)} images")
    learn_labels(context, network, PixelEncoder(options), data, part.training)
    return finish_network(context, network, pixel_spec(options))


def pixel_options_of(image: ImagePart) -> PixelOptions:
    """Return the encoder's options of a recipe's `image`, one mean and deviation per channel."""
    mean, std = (
        values * image.channels if len(values) == 1 else values for values in (image.mean, image.std)
    )
    return PixelOptions(image.height, image.width, image.channels, mean, std, image.centre)


def _image_of(part: TeacherPart) -> ImagePart:
    if part.image is not None:
        return part.image
    if part.weights == EFFICIENTNET:
        return EFFICIENTNET_IMAGES
    raise RecipeError(
        "teacher.image is missing: these weights do not say how they see images",
        where=part.weights,
        hint="teacher: {image: {height: 8, width: 8, channels: 1}}",
    )
