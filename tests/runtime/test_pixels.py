"""Images as texts, and the runtime on a graph of pixels."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from contract.errors import BadRequest, FamilyError, TooLarge
from contract.family import Batching, EncoderSpec
from runtime.api import stack
from runtime.encoders import load_encoder
from runtime.onnx_model import OnnxRuntime
from runtime.pixels import PIXELS, PixelEncoder, PixelOptions, pixel_options, pixel_spec, png_text

GREY = PixelOptions(8, 8, 1, (0.5,), (0.25,))
COLOUR = PixelOptions(16, 24, 3, (0.1, 0.2, 0.3), (0.5, 0.5, 0.5))


def values_of(text: str, options: PixelOptions) -> NDArray[np.float64]:
    """Return the encoded image [height, width, channels] back at 0 to 255."""
    pixels = PixelEncoder(options).encode([text]).arrays[PIXELS][0].astype(np.float64)
    mean, std = (np.array(values).reshape(-1, 1, 1) for values in (options.mean, options.std))
    values: NDArray[np.float64] = ((pixels * std + mean) * 255).transpose(1, 2, 0)
    return values


def file_text(image: Image.Image, kind: str) -> str:
    """Return the base64 of an image file."""
    target = io.BytesIO()
    image.save(target, kind)
    return base64.b64encode(target.getvalue()).decode()


@given(st.integers(0, 99), st.sampled_from([GREY, COLOUR]))
def test_an_image_of_the_right_size_arrives_unchanged(seed: int, options: PixelOptions) -> None:
    """Decoding and normalising can be undone to the very values of the file."""
    shape = (options.height, options.width, options.channels)
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_allclose(values_of(png_text(values), options), values, atol=1e-3)


def test_shape_type_and_length_do_not_depend_on_the_image() -> None:
    """Images of any size, kind and mode become rows of one array; a data URL is taken too."""
    big = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8))
    texts = [file_text(big, kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF")]
    texts += [file_text(big.convert(mode), "PNG") for mode in ("L", "RGBA", "P", "1")]
    texts.append("data:image/png;base64," + texts[0])
    encoded = PixelEncoder(COLOUR).encode(texts)
    assert encoded.arrays[PIXELS].shape == (10, 3, 16, 24)
    assert encoded.arrays[PIXELS].dtype == np.float32
    assert encoded.lengths.tolist() == [1] * 10
    np.testing.assert_array_equal(encoded.arrays[PIXELS][0], encoded.arrays[PIXELS][9])
    assert PixelOptions(224, 224, 3, (0.0,) * 3, (1.0,) * 3).units == 196


def test_parts_are_put_together_as_they_are() -> None:
    """Encodings of several requests are joined along the first axis."""
    encoder = PixelEncoder(COLOUR)
    whole = encoder.encode([encoder.example] * 3)
    again = stack([whole.take([0]), whole.take(slice(1, 3))])
    np.testing.assert_array_equal(again.arrays[PIXELS], whole.arrays[PIXELS])


def test_sixteen_bit_greys_keep_their_upper_half() -> None:
    """A 16-bit PNG is scaled down, where plain conversion would clip it to white."""
    deep = Image.fromarray(np.full((8, 8), 0x4020, dtype=np.uint16))
    np.testing.assert_allclose(values_of(file_text(deep, "PNG"), GREY), 0x40, atol=1e-3)


def test_the_centre_is_cut_out_of_wide_and_tall_images() -> None:
    """With a centre, the shape is kept and the margins are left out; without, the image is stretched."""
    wide = np.zeros((20, 60), dtype=np.uint8)
    wide[:, 20:40] = 200
    cut = PixelOptions(8, 8, 1, (0.0,), (1.0,), centre=0.8)
    for values in (wide, wide.T):
        assert values_of(png_text(values), cut).min() > 199
        assert values_of(png_text(values), GREY).min() < 1


@pytest.mark.parametrize("text", ["", "  ", "good film", "é", "aGVsbG8=", "iVBORw0K"])
def test_what_is_no_image_is_a_bad_request(text: str) -> None:
    """Plain text, broken base64 and bytes of no known format are refused, saying what is expected."""
    with pytest.raises(BadRequest, match=r"base64"):
        PixelEncoder(GREY).encode([text])


def test_a_truncated_image_is_a_bad_request() -> None:
    """Half a file is no image, whatever its header promises."""
    whole = base64.b64decode(PixelEncoder(COLOUR).example)
    with pytest.raises(BadRequest, match="no readable image"):
        PixelEncoder(COLOUR).encode([base64.b64encode(whole[: len(whole) // 2]).decode()])


def test_an_image_that_would_fill_the_memory_is_too_large() -> None:
    """The size in the header is judged before any pixel is decoded."""
    huge = file_text(Image.new("1", (20_000, 20_000)), "PNG")
    with pytest.raises(TooLarge, match="in one image"):
        PixelEncoder(GREY).encode([huge])
    large = file_text(Image.new("1", (10_000, 8_000)), "PNG")
    with pytest.raises(TooLarge, match="10000 by 8000"):
        PixelEncoder(GREY).encode([large])


def test_the_record_brings_back_the_encoder(tmp_path: Path) -> None:
    """Options survive the flat record; every option is part of the identity."""
    for options in (GREY, COLOUR):
        spec = EncoderSpec.model_validate_json(pixel_spec(options).model_dump_json())
        assert pixel_options(spec) == options
        assert load_encoder(tmp_path, spec).sha256 == spec.sha256
    others = [
        PixelOptions(8, 8, 1, (0.4,), (0.25,)),
        PixelOptions(8, 8, 1, (0.5,), (0.3,)),
        PixelOptions(8, 9, 1, (0.5,), (0.25,)),
        PixelOptions(8, 8, 1, (0.5,), (0.25,), centre=0.9),
    ]
    assert len({GREY.sha256, *(other.sha256 for other in others)}) == 5


@pytest.mark.parametrize(
    "changes",
    [{"height": 0}, {"channels": 2}, {"std_0": 0.0}, {"centre": 1.5}, {"more": 1}, {"mean_0": "x"}],
)
def test_impossible_options_are_refused(changes: dict[str, float | str]) -> None:
    """A manifest record with options out of range, unknown or unreadable is an error of the family."""
    spec = pixel_spec(GREY).model_copy(update={"parameters": {**GREY.parameters, **changes}})
    with pytest.raises(FamilyError, match=r"pixel|deviations"):
        pixel_options(spec)
    with pytest.raises(FamilyError, match="mean_0"):
        pixel_options(
            spec.model_copy(update={"parameters": {"height": 8, "width": 8, "channels": 1, "centre": 0}})
        )


@pytest.mark.parametrize("batching", ["single", "batched"])
def test_a_graph_of_pixels_answers_in_the_order_of_the_images(tmp_path: Path, batching: Batching) -> None:
    """The runtime feeds `pixels` whole, however it groups them."""
    shape: list[str | int | None] = ["batch", 1, 8, 8]
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["pixels"], ["most"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("ReduceMin", ["pixels"], ["least"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Unsqueeze", ["most"], ["a"], axes=[1]),
            helper.make_node("Unsqueeze", ["least"], ["b"], axes=[1]),
            helper.make_node("Concat", ["a", "b"], ["logits"], axis=1),
        ],
        "toy",
        [helper.make_tensor_value_info(PIXELS, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7)
    onnx.save(model, str(tmp_path / "model.onnx"))
    encoder = PixelEncoder(PixelOptions(8, 8, 1, (0.0,), (1.0,)))
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (8, 8), dtype=np.uint8) for _ in range(300)]
    runtime = OnnxRuntime(
        tmp_path / "model.onnx",
        encoder=encoder.sha256,
        batching=batching,
    )
    logits = runtime.logits(encoder.encode([png_text(image) for image in images]))
    wanted = [[image.max() / 255, image.min() / 255] for image in images]
    np.testing.assert_allclose(logits, wanted, atol=1e-6)
