"""Turn a photo in any form into an RGB image: a path, bytes, an image, an array, a tensor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from typing import IO, TYPE_CHECKING, Any, TypeGuard, Union

import numpy as np
import numpy.typing as npt
from PIL import Image

from catordog.errors import CatordogError, PhotoError
from catordog.photos.colour import array_to_image, to_rgb
from catordog.photos.photo import Photo
from catordog.photos.preprocess import thumbnail

if TYPE_CHECKING:
    from torch import Tensor

PhotoLike = Union[  # not `|`: a name in quotes has no such operator, and torch is not imported
    str, PathLike[str], bytes, IO[bytes], Image.Image, npt.NDArray[Any], "Tensor"
]

_FORMS = (
    "give a path, the bytes of a photo file, a binary file object, a PIL image, an array [height, "
    "width, 3], a tensor [3, height, width], or a list of these"
)


def reread(photo: PhotoLike) -> PhotoLike | Photo:
    """A photo in a form that `to_image` can take several times, as a file object can't be."""
    if isinstance(photo, (str, PathLike)):
        return Photo.from_file(photo)
    if isinstance(photo, (bytes, bytearray, memoryview)):
        return Photo.from_bytes(bytes(photo), "photo")
    if not isinstance(photo, (Image.Image, np.ndarray)) and hasattr(photo, "read"):
        name, data = getattr(photo, "name", "photo"), photo.read()
        return Photo.from_bytes(data, str(name)) if isinstance(data, bytes) else photo
    return photo


def to_image(photo: PhotoLike | Photo, near: int) -> Image.Image:
    """Read a photo in any form.

    Args:
        photo: a path, the bytes of a photo file, a binary file object, a `PIL.Image` of any mode,
            an array or torch tensor as `array_to_image` takes it, or what `reread` returns.
        near: the side length, in pixels, that it will be resized to (see `decode.decode`).

    Returns:
        An upright RGB image.

    Raises:
        PhotoError: it can't be read, or it is no photo.

    >>> to_image(np.ones((8, 6), np.float32), near=32).size
    (6, 8)
    """
    source = photo if isinstance(photo, Photo) else reread(photo)
    if isinstance(source, Photo):
        return source.image(near)
    if isinstance(source, Image.Image):
        try:
            source.load()
            return to_rgb(source)
        except Exception as error:  # an image whose file is truncated or closed, or without pixels
            raise PhotoError("image", f"{type(error).__name__}: {error}") from None
    if _is_tensor(source):
        return _from_array(_array_of(source))
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if hasattr(source, "read"):
        name = str(getattr(source, "name", "photo"))
        raise PhotoError(name, "opened as text: open it in binary mode, 'rb'")
    raise PhotoError("photo", f"{_described(source)} is no photo: {_FORMS}")


@dataclass(slots=True)
class Pictured:
    """A photo that keeps a small copy of itself when it is read, so that it is decoded once.

    Attributes:
        photo: what `reread` returns.
        picture: a JPEG file, made when `image` is first called.
    """

    photo: PhotoLike | Photo
    picture: bytes | None = None

    def image(self, near: int) -> Image.Image:
        """As `to_image`."""
        image = to_image(self.photo, near)
        if self.picture is None:
            self.picture = thumbnail(image)
        return image


def several(photos: PhotoLike | Iterable[PhotoLike]) -> Iterable[PhotoLike]:
    """One photo as a list of one; several photos as they are.

    Raises:
        CatordogError: it is neither a photo nor an iterable.
    """
    if is_one(photos):
        return [photos]
    if not isinstance(photos, Iterable):
        raise CatordogError(f"{_described(photos)} is no photo: {_FORMS}")
    return photos  # type: ignore[return-value]


def is_one(photos: PhotoLike | Iterable[PhotoLike]) -> TypeGuard[PhotoLike]:
    """Whether this is one photo; an array or tensor of four dimensions is a batch of several."""
    if isinstance(photos, np.ndarray):
        return photos.ndim != 4 and photos.dtype.kind not in "OUS"  # these may be paths
    if _is_tensor(photos):
        return photos.ndim != 4
    single = isinstance(photos, (str, PathLike, bytes, bytearray, memoryview, Image.Image))
    return single or hasattr(photos, "read")


def _from_array(array: npt.NDArray[Any]) -> Image.Image:
    try:
        return array_to_image(array)
    except CatordogError as error:
        raise PhotoError("photo", str(error)) from None


def _array_of(tensor: Tensor) -> npt.NDArray[Any]:
    values = tensor.detach().cpu()
    if values.is_floating_point():
        values = values.float()  # numpy has no bfloat16
    array: npt.NDArray[Any] = values.numpy()
    # Tensors have their channels first, also where a photo of 3 × 3 pixels doesn't tell.
    return np.moveaxis(array, 0, -1) if array.ndim == 3 and array.shape[0] in {1, 3, 4} else array


def _is_tensor(photo: object) -> TypeGuard[Tensor]:
    return hasattr(photo, "permute")  # torch is not imported to find out


def _described(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"
