"""How images are held for training."""

from __future__ import annotations

import numpy as np
import torch

from compress.networks.image_models import ImageArchitecture, Images, pretrained_network
from runtime.pixels import PixelEncoder, PixelOptions, png_text


def test_images_are_held_as_bytes_and_give_the_pixels_of_the_encoder() -> None:
    """A network reads images into a byte per value; its batches are bit for bit what serving would see."""
    rng = np.random.default_rng(0)
    encoder = PixelEncoder(PixelOptions(8, 8, 3, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)))
    texts = [png_text(rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)) for _ in range(5)]
    network, _ = pretrained_network(ImageArchitecture("small-cnn", "", 4, 3, 8, 8), seed=0)
    read = network.read(encoder, texts)
    assert isinstance(read, Images)
    assert read.values.nbytes == 5 * 8 * 8 * 3
    rows = np.array([3, 0, 3])
    whole = network.examples(encoder.encode(texts))
    assert torch.equal(read.batch(rows)[0], whole.batch(rows)[0])
    assert np.array_equal(read.lengths, whole.lengths)
