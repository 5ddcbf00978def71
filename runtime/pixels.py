"""Encoder of images: each travels as text, the base64 of a file, and becomes an array of pixels."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from contract.errors import BadRequest, EnvironmentProblem, FamilyError, TooLarge
from contract.family import EncoderSpec
from contract.files import sha256_of_json
from runtime.api import Encoded

if TYPE_CHECKING:
    from PIL.Image import Image

PIXELS = "pixels"

# Whatever else Pillow could open stays shut: these are what cameras and browsers write.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
MOST_PIXELS = 50_000_000
# The unit of length is a patch of 16 by 16 pixels, so that a run of so many units is about as much work as
# one of so many tokens.
_PATCH = 256
_SIXTEEN_BITS = "I;16"


@dataclass(frozen=True)
class PixelOptions:
    """What decides the pixels of an image, and so the identity of the encoding.

    Attributes:
        height, width: of the array.
        channels: 1 (grey) or 3 (red, green, blue).
        mean, std: per channel, of values between 0 and 1: a value v becomes (v - mean) / std.
        centre: share of the largest centred region of the array's shape that is kept; 0 keeps the whole
            image and stretches it.
    """

    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    centre: float = 0.0

    def __post_init__(self) -> None:
        if not (1 <= self.height <= 4096 and 1 <= self.width <= 4096 and self.channels in {1, 3}):
            raise FamilyError("pixels need a height and width of 1 to 4096, and 1 or 3 channels")
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise FamilyError(f"pixels of {self.channels} channels need so many means and deviations")
        if not (all(value > 0 for value in self.std) and 0 <= self.centre <= 1):
            raise FamilyError("deviations must be above 0, and the centre between 0 and 1")

    @property
    def parameters(self) -> dict[str, float | int | str | bool]:
        """The options in the flat form of a manifest."""
        flat: dict[str, float | int | str | bool] = {
            "height": self.height,
            "width": self.width,
            "channels": self.channels,
            "centre": float(self.centre),
        }
        for name, values in (("mean", self.mean), ("std", self.std)):
            flat |= {f"{name}_{index}": float(value) for index, value in enumerate(values)}
        return flat

    @property
    def sha256(self) -> str:
        """Identity of the encoding."""
        return sha256_of_json({"encoder": "pixels", "revision": 1, **self.parameters})

    @property
    def units(self) -> int:
        """Length of every image: patches of 16 by 16 pixels, at least one."""
        return max(1, self.height * self.width // _PATCH)


def pixel_spec(options: PixelOptions) -> EncoderSpec:
    """Return the manifest record of a pixel encoding."""
    return EncoderSpec(kind="pixels", parameters=options.parameters, sha256=options.sha256)


def pixel_options(spec: EncoderSpec) -> PixelOptions:
    """Return the options that a manifest record holds.

    Raises:
        FamilyError: for missing, unknown or impossible options.
    """
    left = dict(spec.parameters)
    try:
        height, width, channels = (int(left.pop(name)) for name in ("height", "width", "channels"))
        centre = float(left.pop("centre"))
        mean, std = (
            tuple(float(left.pop(f"{name}_{index}")) for index in range(channels)) for name in ("mean", "std")
        )
    except (KeyError, ValueError) as problem:
        raise FamilyError(f"pixel options: {problem}") from None
    if left:
        raise FamilyError(f"pixel options: unknown {', '.join(left)}")
    return PixelOptions(height, width, channels, mean, std, centre)


class PixelEncoder:
    """Turns images into `pixels`, float32 [N, channels, height, width].

    A text is the base64 of an image file of one of FORMATS, with or without a `data:...;base64,` in front.
    Images are resized bilinearly, averaging where they shrink (antialiasing). Thread-safe.

    Raises:
        EnvironmentProblem: when Pillow is missing.
    """

    def __init__(self, options: PixelOptions) -> None:
        try:
            import PIL.Image  # noqa: F401
        except ImportError as problem:
            raise EnvironmentProblem(
                f"images need Pillow, which does not load: {problem}", hint="pip install 'sluicegate[images]'"
            ) from None
        self.options = options
        self._sha256 = options.sha256
        std = np.array(options.std, dtype=np.float32)
        self._scale = (1 / (255 * std)).reshape(-1, 1, 1).astype(np.float32)
        self._shift = (-np.array(options.mean, dtype=np.float32) / std).reshape(-1, 1, 1)

    @property
    def sha256(self) -> str:
        """Identity of the encoding."""
        return self._sha256

    @cached_property
    def example(self) -> str:
        """An image of random pixels, of the size that needs no resizing."""
        shape = (self.options.height, self.options.width, self.options.channels)
        return png_text(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Decode N >= 1 images.

        Raises:
            BadRequest: a text is not the base64 of an image of a known format.
            TooLarge: an image has more than MOST_PIXELS.
        """
        lengths = np.full(len(texts), self.options.units, dtype=np.int64)
        return Encoded({PIXELS: self.normalised(self.values(texts))}, lengths, self._sha256)

    def values(self, texts: Sequence[str]) -> NDArray[np.uint8]:
        """Return the resized images [N, height, width, channels], values 0 to 255. Raises as `encode`."""
        options = self.options
        found = np.empty((len(texts), options.height, options.width, options.channels), dtype=np.uint8)
        for row, text in enumerate(texts):
            found[row] = self._values(text)
        return found

    def normalised(self, values: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return `pixels` of images from `values`."""
        pixels: NDArray[np.float32] = np.multiply(values.transpose(0, 3, 1, 2), self._scale, order="C")
        pixels += self._shift
        return pixels

    def _values(self, text: str) -> NDArray[np.uint8]:
        """Return the resized image [height, width, channels], values 0 to 255."""
        from PIL import Image

        options = self.options
        image = open_image(text)
        if image.mode.startswith(_SIXTEEN_BITS):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image = image.convert("L" if options.channels == 1 else "RGB")
        if options.centre or image.size != (options.width, options.height):
            image = image.resize(
                (options.width, options.height), Image.Resampling.BILINEAR, box=self._box(*image.size)
            )
        return np.asarray(image, dtype=np.uint8).reshape(options.height, options.width, options.channels)

    def _box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return the part of an image that is kept: left, upper, right, lower."""
        options = self.options
        if not options.centre:
            return (0.0, 0.0, float(width), float(height))
        scale = min(width / options.width, height / options.height) * options.centre
        kept_width, kept_height = scale * options.width, scale * options.height
        left, upper = (width - kept_width) / 2, (height - kept_height) / 2
        return (left, upper, left + kept_width, upper + kept_height)


def open_image(text: str) -> Image:
    """Return the decoded image of a text. Raises as `PixelEncoder.encode`."""
    from PIL import Image

    body = text.partition("base64,")[2] if text.startswith("data:") else text
    try:
        content = base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest(f"an image must be sent as the base64 of its file; {_start(text)} is not") from None
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > MOST_PIXELS:
            raise TooLarge(
                f"an image of {image.width} by {image.height} pixels; at most {MOST_PIXELS} in one image"
            )
        image.load()
    except TooLarge:
        raise
    except Image.DecompressionBombError:
        raise TooLarge(f"an image has too many pixels; at most {MOST_PIXELS} in one image") from None
    except Exception:  # noqa: BLE001 - decoders raise many kinds for broken files: OSError, SyntaxError, ...
        raise BadRequest(
            f"{_start(text)} is the base64 of no readable image; known formats: {', '.join(FORMATS)}"
        ) from None
    return image


def png_text(values: NDArray[np.uint8]) -> str:
    """Return the base64 of a PNG of an image [height, width] or [height, width, 1 or 3]."""
    from PIL import Image

    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    target = io.BytesIO()
    Image.fromarray(values).save(target, "PNG")
    return base64.b64encode(target.getvalue()).decode("ascii")


def _start(text: str) -> str:
    return "an empty text" if not text.strip() else f"'{text[:24]}…'"
