"""A picture from a file as models take it: upright, in eight bits, red, green and blue.

Pillow reads it.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import LibraryError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

REMEDY = "reading images needs Pillow: pip install pillow."

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's channels, from 0 to 1: every published model of these takes its input so."""


def read_image(path: Path) -> Image:
    """The first picture of a file, as it is meant to be seen.

    EXIF orientation is applied, transparency is laid on white, sixteen bits become eight.

    Raises:
        UsageError: there is no such file, or it is not an image, is damaged or far too large.
        LibraryError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise LibraryError(REMEDY) from error
    if path.is_dir():
        raise UsageError(f"the image {path} is a directory; name a file.")
    try:
        with warnings.catch_warnings():
            # Large is what a user may ask for; twice as much is an error of Pillow's. Of damage it
            # says what matters in the end.
            warnings.simplefilter("ignore")
            with Image.open(path) as opened:
                opened.load()
                upright = ImageOps.exif_transpose(opened)
    except FileNotFoundError as error:
        raise UsageError(f"there is no image {path}.") from error
    except Image.DecompressionBombError as error:
        raise UsageError(
            f"the image {path} has too many pixels to open; make it smaller."
        ) from error
    except UnidentifiedImageError as error:
        raise UsageError(f"{path} is not an image that Pillow can read.") from error
    except Exception as error:  # a damaged image raises whatever its bytes happen to lead to
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UsageError(f"the image {path} could not be read: {reason}.") from error
    return _in_colour(upright)


def _in_colour(image: Image) -> Image:
    from PIL import Image

    if image.mode.startswith("I"):  # sixteen bits, in sixteen or in thirty-two
        values = np.asarray(image).astype(np.int64).clip(0, 0xFFFF) // 257
        image = Image.fromarray(values.astype(np.uint8))
    elif image.mode == "F":
        values = np.nan_to_num(np.asarray(image), posinf=0.0, neginf=0.0)
        low, high = float(values.min()), float(values.max())
        values = (values - low) / ((high - low) or 1.0) * 255
        image = Image.fromarray(values.round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(ground, image)
    return image.convert("RGB")


def as_input(image: Image, width: int, height: int) -> Any:
    """The image as models take it, (3, height, width) in float32.

    It is resized to that size whatever its own proportions, without cropping.
    """
    from PIL import Image

    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    values = np.asarray(image, dtype=np.float32) / 255.0  # (H, W, 3)
    scaled = (values - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1), dtype=np.float32)  # (3, H, W)
