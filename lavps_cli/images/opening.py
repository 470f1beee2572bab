"""Files as Pillow opens them: known kinds only, of a bearable size, every failure in words."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image as PillowImage
from PIL import ImageFile, UnidentifiedImageError

from lavps_cli.errors import DataError
from lavps_cli.images.deep import UnsupportedError

# Files end early more often than decoders admit: an error, never half a picture.
ImageFile.LOAD_TRUNCATED_IMAGES = False

Stream = io.BufferedReader | io.BytesIO

_READ = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "AVIF", "GIF", "BMP", "PPM", "JPEG2000", "HEIF")
"""Of Pillow's plugins; the others cut depths unseen, guess, or start programs."""
_HEAD = 1 << 20
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


@contextmanager
def opened(source: Path | bytes, name: str) -> Iterator[tuple[Stream, bytes]]:
    """Open a file as a stream and its first bytes, and translate whatever is thrown inside.

    Raises:
        DataError: It is not there, empty, no picture, or damaged.
    """
    limit = PillowImage.MAX_IMAGE_PIXELS
    PillowImage.MAX_IMAGE_PIXELS = None  # `check_size` does it, with our message.
    try:
        if isinstance(source, Path) and not source.is_file():
            source = source.read_bytes()  # A pipe by name; or an error that says what it is.
        stream: Stream = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
        with stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            head = stream.read(_HEAD)
            stream.seek(0)
            if not head:
                raise DataError(f"{name} is empty.", "Check what wrote it.")
            yield stream, head
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{name}: there is no such file.", "Check the path.") from error
    except IsADirectoryError as error:
        raise DataError(f"{name} is a folder.", f"Give its pictures:  {name}/*.png") from error
    except PermissionError as error:
        raise DataError(f"{name} may not be read.", "Check its permissions.") from error
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
    stream: Stream, head: bytes, name: str, max_pixels: int, page: int | None = None
) -> PillowImage.Image:
    """Return an opened picture, not yet decoded.

    Args:
        stream: Of the file.
        head: Its first bytes.
        name: What messages call it.
        max_pixels: The most that may be decoded.
        page: Which picture of a file that holds several, from 1; None refuses such files.

    Raises:
        DataError: It is too large, or holds several pictures, or a reader is missing.
        UnidentifiedImageError: It is none of the known kinds.
    """
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS and b"avif" not in head[8:64]:
        _take_heif(name)
    PillowImage.init()
    file = PillowImage.open(stream, formats=[kind for kind in _READ if kind in PillowImage.OPEN])
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


def _take_heif(name: str) -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise DataError(
            f"{name}: cannot read HEIC here.", 'Install the reader:  pip install "lavps[heif]"'
        ) from error
    register_heif_opener()
