"""EfficientNet-Lite0 with its published weights: what it sees, its export, and its INT8 copy."""

from __future__ import annotations

import base64
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from compress.datasets.sources import package_path
from compress.graphs.export import check_probes, export_onnx
from compress.graphs.image_quantize import quantize_convolutions
from compress.graphs.structure import require_structure
from compress.graphs.verify import verify_graph
from compress.learning.image_teacher import pixel_options_of
from compress.networks import image_weights
from compress.networks.efficientnet import EfficientNetLite0
from compress.networks.image_models import ImageArchitecture, ImageNetwork, pretrained_network
from compress.networks.image_weights import (
    EFFICIENTNET,
    EFFICIENTNET_IMAGES,
    efficientnet_state,
    image_fingerprint,
)
from compress.networks.models import load_network
from contract.errors import RecipeError
from contract.family import Precision
from runtime.pixels import PixelEncoder, png_text

PACKAGE = EFFICIENTNET.removeprefix("package:")
PALACE, DAISY = 698, 985


def installed() -> bool:
    """Return whether the weights are here."""
    try:
        metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        return False
    return True


pytestmark = pytest.mark.skipif(not installed(), reason=f"needs the package {PACKAGE}")


@pytest.fixture(scope="module")
def network() -> ImageNetwork:
    """The published network, at 128 by 128 pixels, a third of the work of its own 224."""
    shape = ImageArchitecture(EFFICIENTNET, image_fingerprint(EFFICIENTNET), 1000, 3, 128, 128)
    made, trained = pretrained_network(shape, seed=0)
    assert trained
    return made


@pytest.fixture(scope="module")
def graph(network: ImageNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its exported graph."""
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    export_onnx(network, path)
    return path


def photos() -> list[Image.Image]:
    """Return the two photographs that scikit-learn ships: a Chinese palace and a flower."""
    return [
        Image.open(package_path(f"package:scikit-learn/datasets/images/{name}.jpg"))
        for name in ("china", "flower")
    ]


def cuttings(count: int, *, seed: int) -> list[str]:
    """Return random square parts of the photographs."""
    rng, found = np.random.default_rng(seed), []
    pictures = photos()
    for number in range(count):
        picture = pictures[number % 2]
        side = int(rng.integers(120, 400))
        left, upper = (int(rng.integers(0, size - side)) for size in picture.size)
        found.append(png_text(np.asarray(picture.crop((left, upper, left + side, upper + side)))))
    return found


def test_the_published_network_sees_what_is_there() -> None:
    """At its own size, weights, padding and normalisation together name a palace and a flower."""
    network, _ = pretrained_network(ImageArchitecture(EFFICIENTNET, "", 1000, 3, 224, 224), seed=0)
    files = [Path(picture.filename).read_bytes() for picture in photos()]
    encoded = PixelEncoder(pixel_options_of(EFFICIENTNET_IMAGES)).encode(
        [base64.b64encode(content).decode() for content in files]
    )
    with torch.no_grad():
        logits = network(*network.examples(encoded).batch(np.arange(2)))
    assert logits.argmax(1).tolist() == [PALACE, DAISY]
    assert network.flops(1) == pytest.approx(2 * 385e6, rel=0.01)


def test_the_graph_agrees_with_the_network(network: ImageNetwork, graph: Path) -> None:
    """Logits of the exported graph are those of torch, at several batch sizes and on photographs."""
    assert check_probes(network, graph) < 1e-3
    options = pixel_options_of(EFFICIENTNET_IMAGES.model_copy(update={"height": 128, "width": 128}))
    encoded = PixelEncoder(options).encode(cuttings(8, seed=0))
    found = verify_graph(graph, network, encoded, precision="fp32", batching="batched")
    assert found.label_agreement == 1
    assert found.max_logit_error < 1e-3


@pytest.mark.parametrize(("signed", "least"), [(False, 0.75), (True, 0.75)])
def test_the_int8_copy_keeps_to_the_network(
    network: ImageNetwork, graph: Path, tmp_path: Path, signed: bool, least: float
) -> None:
    """A quarter of the size, every convolution INT8, and mostly the same of 1,000 labels on hard cuttings."""
    options = pixel_options_of(EFFICIENTNET_IMAGES.model_copy(update={"height": 128, "width": 128}))
    encoder, small = PixelEncoder(options), tmp_path / "int8.onnx"
    quantize_convolutions(graph, small, encoder.encode(cuttings(32, seed=1)), signed=signed)
    precision: Precision = "int8-qdq" if signed else "int8-static"
    require_structure(small, precision)
    assert small.stat().st_size < graph.stat().st_size / 3
    found = verify_graph(
        small, network, encoder.encode(cuttings(32, seed=2)), precision=precision, batching="batched"
    )
    assert found.label_agreement >= least
    assert found.max_logit_error < 3


def test_saved_and_read_it_is_the_same(network: ImageNetwork, tmp_path: Path) -> None:
    """What a step writes is enough to bring it back."""
    network.save(tmp_path)
    assert torch.equal(load_network(tmp_path)(network.images(1)), network(network.images(1)))


def test_another_number_of_classes_gets_a_new_head() -> None:
    """For other labels than ImageNet's the head is new, small and not trained; the rest is as published."""
    network, trained = pretrained_network(ImageArchitecture(EFFICIENTNET, "", 7, 3, 64, 96), seed=0)
    assert not trained
    assert isinstance(network.module, EfficientNetLite0)
    assert network.module.fc.weight.abs().max() < 0.1
    published = efficientnet_state()["_conv_stem.weight"]
    assert torch.equal(network.module.conv_stem.weight, published)
    with pytest.raises(RecipeError, match="must be 3"):
        pretrained_network(ImageArchitecture(EFFICIENTNET, "", 7, 1, 64, 64), seed=0)


def test_altered_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights with another hash than the published one are not loaded."""
    other = tmp_path / "other.pth"
    other.write_bytes(b"something else")
    monkeypatch.setattr(image_weights, "efficientnet_file", lambda: other)
    with pytest.raises(RecipeError, match="not the weights they claim to be"):
        efficientnet_state()
