"""Files as Pillow opens them: known kinds only, of a bearable size, every failure in words."""

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image as PillowImage
from PIL import ImageFile, UnidentifiedImageError

from lavps_cli.errors import DataError
from lavps_cli.images.deep import UnsupportedError
from lavps_cli.images.sniffing import HEIF_BRANDS
from lavps_cli.storage.failures import UnreachableError
from lavps_cli.storage.places import Place
from lavps_cli.storage.remote import Remote

# Files end early more often than decoders admit: an error, never half a picture.
ImageFile.LOAD_TRUNCATED_IMAGES = False

_READ = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "AVIF", "GIF", "BMP", "PPM", "JPEG2000", "HEIF")
"""Of Pillow's plugins; the others cut depths unseen, guess, or start programs."""
_MOST_BYTES = 1 << 32


@contextmanager
def opened(source: Place | bytes, name: str) -> Iterator[bytes]:
    """Return the content of a file, and translate whatever is thrown inside the block.

    Read whole: of a stream, decoders ask for as many bytes as the file claims to have, and get
    that much memory.

    Raises:
        DataError: It is not there, empty, no picture, or damaged.
    """
    limit = PillowImage.MAX_IMAGE_PIXELS
    PillowImage.MAX_IMAGE_PIXELS = None  # `check_size` does it, with our message.
    try:
        if not isinstance(source, bytes):
            if source.is_file() and source.stat().st_size > _MOST_BYTES:
                raise DataError(f"{name} has more than 4 GiB.", "Is it a picture?")
            source = source.read_bytes()
        if not source:
            raise DataError(f"{name} is empty.", "Check what wrote it.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield source
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{name}: there is no such file.", "Check the path.") from error
    except IsADirectoryError as error:
        raise DataError(f"{name} is a folder.", f"Give its pictures:  {name}/*.png") from error
    except PermissionError as error:
        reason = f": {error.strerror}" if isinstance(source, Remote) else ""
        raise DataError(f"{name} may not be read{reason}.", "Check its permissions.") from error
    except UnreachableError as error:
        raise DataError(
            f"{name} cannot be fetched: {error.strerror}.", "Give the same command again later."
        ) from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{name} is not a picture that can be read here.",
            "Readable are PNG, JPEG, WebP, TIFF, AVIF, GIF, BMP, PPM, JPEG 2000 and NPY; with "
            'pip install "lavps[heif]" HEIC, with "lavps[deep]" TIFF of floats.',
        ) from error
    except UnsupportedError as error:
        raise DataError(
            f"{name} cannot be read whole: {error}.", "Convert it to a PNG of 16 bits."
        ) from error
    except Exception as error:  # Decoders throw anything at damaged files.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name} is damaged: {reason[:200]}", "Get the file again.") from error
    finally:
        PillowImage.MAX_IMAGE_PIXELS = limit


def open_image(
    content: bytes, name: str, max_pixels: int, page: int | None = None
) -> PillowImage.Image:
    """Return an opened picture, not yet decoded.

    Args:
        content: The whole file.
        name: What messages call it.
        max_pixels: The most that may be decoded.
        page: Which picture of a file that holds several, from 1; None refuses such files.

    Raises:
        DataError: It is too large, or holds several pictures, or a reader is missing.
        UnidentifiedImageError: It is none of the known kinds.
    """
    brands = content[8:64]
    if content[4:8] == b"ftyp" and brands[:4] in HEIF_BRANDS and b"avif" not in brands:
        _take_heif(name)
    PillowImage.init()
    file = PillowImage.open(
        io.BytesIO(content), formats=[kind for kind in _READ if kind in PillowImage.OPEN]
    )
    check_size(file.size, name, max_pixels)
    if page is not None:
        try:
            file.seek(page - 1)
        except EOFError as error:
            raise DataError(f"{name} has no picture {page}.", "Take:  --page 1") from error
        check_size(file.size, name, max_pixels)
    # Not counted, which may take long; and the second view of a phone's picture is no page.
    elif getattr(file, "is_animated", False) and file.format != "MPO":
        raise DataError(f"{name} holds several pictures.", "Take the first:  --page 1")
    return file


def check_size(size: tuple[int, int], name: str, max_pixels: int) -> None:
    """Check the width and height of a picture before it is decoded.

    Raises:
        DataError: They are too large.
    """
    width, height = size
    if width * height > max_pixels:
        raise DataError(
            f"{name} has {width}x{height} pixels, more than --max-pixels {max_pixels}.",
            f"If you trust it:  --max-pixels {width * height}",
        )


def content_of(path: Place, name: str) -> bytes:
    """Return the content of a file; `name` is what messages call it.

    Raises:
        DataError: It cannot be read, or is empty.
    """
    with opened(path, name) as content:
        return content


def size_of(content: bytes) -> int:
    """Return how many pixels a file says to have, 0 where it does not say."""
    try:
        with opened(content, "") as content:
            return math.prod(open_image(content, "", 1 << 62, page=1).size)
    except DataError:
        return 0


def _take_heif(name: str) -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise DataError(
            f"{name}: cannot read HEIC here.", 'Install the reader:  pip install "lavps[heif]"'
        ) from error
    register_heif_opener()
