"""From a photo to network input: the same in training, evaluation and prediction."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from catordog.errors import CatordogError
from catordog.photos.photo import Photo

Resize = Literal["squash", "crop", "pad"]
Resample = Literal["bicubic", "area"]

# Mean and standard deviation of ImageNet's pixels, which torchvision's pretrained networks expect
# (torchvision.models docs); a network trained from scratch works as well with them as with others.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How a photo becomes network input. It travels inside every checkpoint.

    Attributes:
        size: side length S of the square input, in pixels.
        resize: `squash` scales both sides to S and ignores the aspect ratio; `crop` scales the
            shorter side to S and cuts the middle; `pad` scales the longer side to S and fills the
            rest with the mean colour.
        mean, std: mean and standard deviation that pixels in 0…1 are normalised by, for each
            channel (red, green, blue).
        resample: `bicubic`; or `area`, which averages blocks of pixels before it interpolates: a
            third of the time, and as good where a photo becomes much smaller.

    Raises:
        CatordogError: a value is out of its range.
    """

    size: int = 64
    resize: Resize = "squash"
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    resample: Resample = "bicubic"

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 2048:
            raise CatordogError(f"an input size of {self.size} pixels is not within 8…2048")
        if self.resize not in get_args(Resize):
            raise CatordogError(
                f"unknown resize rule {self.resize!r}: choose from {', '.join(get_args(Resize))}"
            )
        if self.resample not in get_args(Resample):
            raise CatordogError(
                f"unknown resampling {self.resample!r}: choose from {', '.join(get_args(Resample))}"
            )
        if any(len(values) != 3 for values in (self.mean, self.std)) or min(self.std) <= 0:
            raise CatordogError(
                "mean and std need three numbers each, and those of std must be positive"
            )

    @property
    def padding(self) -> tuple[int, int, int]:
        """The colour that `pad` fills with, in RGB, 0…255 each."""
        red, green, blue = (min(255, max(0, round(255 * value))) for value in self.mean)
        return red, green, blue

    def load(self, photo: Photo) -> npt.NDArray[np.uint8]:
        """Read a photo, decode it near this size, and resize it to `uint8 [S, S, 3]`.

        Raises:
            PhotoError: it can't be read.
        """
        return self.pixels(photo.image(near=self.size))

    def pixels(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """Resize an RGB image of any size to `uint8 [S, S, 3]`."""
        size = self.size
        if image.size == (size, size):
            return np.asarray(image)
        box: tuple[float, float, float, float] = (0, 0, image.width, image.height)
        if self.resize == "crop":
            edge = min(image.size)
            left, top = (image.width - edge) / 2, (image.height - edge) / 2
            box = (left, top, left + edge, top + edge)
        if self.resize == "pad":
            scale = size / max(image.size)
            width, height = (max(1, round(length * scale)) for length in image.size)
            square = Image.new("RGB", (size, size), self.padding)
            scaled = self._resized(image, (width, height))
            square.paste(scaled, ((size - width) // 2, (size - height) // 2))
            return np.asarray(square)
        return np.asarray(self._resized(image, (size, size), box))

    def _resized(
        self,
        image: Image.Image,
        size: tuple[int, int],
        box: tuple[float, float, float, float] | None = None,
    ) -> Image.Image:
        if self.resample == "area":
            return image.resize(size, Image.Resampling.BILINEAR, box, reducing_gap=1.01)
        return image.resize(size, Image.Resampling.BICUBIC, box)

    def normalise(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Normalise `uint8 [N, S, S, 3]` to network input, `float32 [N, 3, S, S]`."""
        mean, std = (np.array(values, dtype=np.float32) for values in (self.mean, self.std))
        levels = (np.arange(256, dtype=np.float32)[:, None] / np.float32(255) - mean) / std
        result = np.empty((len(pixels), 3, *pixels.shape[1:3]), np.float32)
        for channel in range(3):  # a table of 256 takes a quarter of the time
            column = np.ascontiguousarray(levels[:, channel])
            np.take(column, pixels[..., channel], out=result[:, channel], mode="clip")
        return result

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a model file."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            CatordogError: a value is missing or out of its range.
        """

        def three(name: str) -> tuple[float, float, float]:
            red, green, blue = (float(value) for value in _sequence(values[name]))
            return red, green, blue

        try:
            return cls(
                int(values["size"]),
                values["resize"],
                three("mean"),
                three("std"),
                values.get("resample", "bicubic"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CatordogError(f"unusable preprocessing in the model file: {error}") from None


def thumbnail(image: Image.Image, size: int = 160) -> bytes:
    """A small copy of an image as a JPEG file, at most `size` pixels high and wide."""
    small = image.copy()
    small.thumbnail((size, size))
    packed = io.BytesIO()
    small.convert("RGB").save(packed, "JPEG", quality=80)
    return packed.getvalue()


def _sequence(value: object) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{value!r} is not a list")
    return value
