"""The README's table of formats is what comes out of files that real encoders made.

Run this file, with the extras `deep` and `heif`, to rewrite the table.
"""

import io
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, ImageCms, PngImagePlugin
from PIL import Image as PillowImage

from lavps_cli.errors import DataError
from lavps_cli.images.reading import load_picture
from lavps_cli.images.writing import encode, with_writable_metadata

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- formats -->\n", "<!-- end of formats -->\n"
HEADER = "| file | result | colours | bits | profile | EXIF, GPS | XMP | dpi | texts | upright |"
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6" note="mine"/></x:xmpmeta>'
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")
TALL = (8, 24)
"""Width and height of the pictures as stored; they lie on their side."""

Save = dict[str, Any]
Encoder = Callable[[PillowImage.Image, Save], bytes]


def exif() -> PillowImage.Exif:
    tags = PillowImage.Exif()
    tags[ExifTags.Base.Orientation] = 6
    tags[ExifTags.Base.Artist] = "A. Photographer"
    tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FNumber] = 2.8
    tags.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    return tags


def pillow(kind: str) -> Encoder:
    def save(image: PillowImage.Image, options: Save) -> bytes:
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        return stream.getvalue()

    return save


def heic(image: PillowImage.Image, options: Save) -> bytes:
    import pillow_heif

    pillow_heif.register_heif_opener()
    return pillow("HEIF")(image, options)


def png_texts() -> Save:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("Title", "a title")
    chunks.add_itxt("XML:com.adobe.xmp", XMP.decode())
    return {"pnginfo": chunks}


def numbers(dtype: str, channels: int = 3) -> Any:
    steps = np.linspace(0.1, 0.9, TALL[0] * TALL[1] * channels)
    values = steps.reshape(TALL[1], TALL[0], channels)
    return values.astype(dtype) if dtype.startswith("f") else (values * 65535).astype(dtype)


def deep_png() -> bytes:
    import imagecodecs

    return bytes(imagecodecs.png_encode(numbers("uint16")))


def deep_tiff(dtype: str) -> bytes:
    import tifffile

    stream = io.BytesIO()
    tifffile.imwrite(stream, numbers(dtype), photometric="rgb", compression="lzw")
    return stream.getvalue()


def deep_avif() -> bytes:
    import imagecodecs

    return bytes(imagecodecs.avif_encode(numbers("uint16") >> 6, bitspersample=10))


def deep_heic() -> bytes:
    import pillow_heif

    values = numbers("uint16")
    stream = io.BytesIO()
    pillow_heif.from_bytes("RGB;16", TALL, values.tobytes()).save(stream, quality=90)
    return stream.getvalue()


def array(dtype: str) -> bytes:
    stream = io.BytesIO()
    np.save(stream, numbers(dtype))
    return stream.getvalue()


DPI: Save = {"dpi": (300, 300)}
EVERYTHING: Save = {"exif": 0, "icc_profile": PROFILE, "xmp": XMP}
FILES: dict[str, tuple[Encoder | None, Save, dict[int, Callable[[], bytes]], str]] = {
    "PNG": (pillow("PNG"), EVERYTHING | DPI | {"xmp": None}, {16: deep_png}, "imagecodecs"),
    "JPEG": (pillow("JPEG"), EVERYTHING | DPI | {"comment": b"a title"}, {}, ""),
    "WebP": (pillow("WEBP"), EVERYTHING | {"lossless": True}, {}, ""),
    "AVIF": (pillow("AVIF"), EVERYTHING, {10: deep_avif}, "imagecodecs"),
    "TIFF": (
        pillow("TIFF"),
        EVERYTHING | DPI | {"xmp": None},
        {16: lambda: deep_tiff("uint16"), 32: lambda: deep_tiff("float32")},
        "imagecodecs",
    ),
    "HEIC": (heic, EVERYTHING, {10: deep_heic}, "pillow_heif"),
    "GIF": (pillow("GIF"), {"comment": b"a title"}, {}, ""),
    "BMP": (pillow("BMP"), DPI, {}, ""),
    "PPM": (pillow("PPM"), {}, {}, ""),
    "JPEG 2000": (pillow("JPEG2000"), {}, {}, ""),
    "NPY": (None, {}, {32: lambda: array("float32"), 16: lambda: array("uint16")}, ""),
}


def image(mode: str) -> PillowImage.Image:
    """Return a picture that is bright where the top is when it stands upright: at the left."""
    values = np.full((TALL[1], TALL[0], 4), 60, np.uint8)
    values[:, : TALL[0] // 2] = 200
    values[..., 3] = np.linspace(0, 255, TALL[1], dtype=np.uint8)[:, None]
    values[::3, :, 1] //= 2
    made = PillowImage.fromarray(values)
    if mode == "P":
        return made.convert("RGB").quantize(8)
    return made.convert("RGB").convert("CMYK") if mode == "CMYK" else made.convert(mode)


def options_of(name: str, options: Save) -> Save:
    options = {key: value for key, value in options.items() if value is not None}
    if "exif" in options:
        options["exif"] = exif()
        if name == "TIFF":  # Pillow writes inner tables of TIFF if they are values, too.
            options["exif"][0x2BC] = XMP
            for table in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
                options["exif"][table] = dict(options["exif"].get_ifd(table))
    return options | (png_texts() if name == "PNG" else {})


def restored(content: bytes) -> tuple[str, bytes]:
    """Return the format and the bytes of a result that changes nothing."""
    picture = load_picture(content, "in")
    picture = with_writable_metadata(picture, picture.format)
    return picture.format, encode(picture, picture.format)


def colours(encoder: Encoder) -> str:
    """Return the modes that an encoder takes, and what becomes of those that change."""
    told = []
    for mode in MODES:
        try:
            content = encoder(image(mode), {})
            with PillowImage.open(io.BytesIO(content)) as file:
                stored = file.mode
        except (OSError, ValueError, KeyError):
            continue
        if stored != mode:  # The encoder itself changed it.
            continue
        with PillowImage.open(io.BytesIO(restored(content)[1])) as file:
            told.append(mode if file.mode == mode else f"{mode} to {file.mode}")
    return ", ".join(told)


def bits(deep: dict[int, Callable[[], bytes]], eight: bool) -> str:
    """Return the depths that files have and, where they change, those of the results."""
    told = ["8"] if eight else []
    for depth, make in sorted(deep.items()):
        picture = load_picture(make(), "in")
        assert len(encode(picture, picture.format)) > 0
        came, left = ("floats" if each == 32 else str(each) for each in (depth, picture.depth))
        told.append(came if came == left else f"{came} to {picture.format} of {left}")
    return ", ".join(told)


def fate(before: object, after: object) -> str:
    """Return what a table says of something that a file may hold."""
    if not before:
        return "-"
    return "kept" if after else "lost"


def said(content: bytes) -> dict[str, bool]:
    """Return which of the metadata another reader finds in a file."""
    with PillowImage.open(io.BytesIO(content)) as file:
        tags, info = file.getexif(), dict(file.info)
        xmp = info.get("xmp") or tags.get(0x2BC) or str(info.get("XML:com.adobe.xmp", "")).encode()
        inner, gps = tags.get_ifd(ExifTags.IFD.Exif), tags.get_ifd(ExifTags.IFD.GPSInfo)
        whole = (
            tags.get(ExifTags.Base.Artist) == "A. Photographer"
            and abs(float(inner.get(ExifTags.Base.FNumber, 0)) - 2.8) < 1e-3
            and gps.get(ExifTags.GPS.GPSLatitudeRef) == "N"
        )
        text = (*info.values(), *getattr(file, "text", {}).values())
    return {
        "profile": info.get("icc_profile") == PROFILE,
        "exif": whole,
        "xmp": b'note="mine"' in xmp,
        "dpi": round(float(info.get("dpi", (0, 0))[0])) == 300,
        "texts": any(each in ("a title", b"a title") for each in text),
        "lying": tags.get(ExifTags.Base.Orientation, 1) != 1 or b'Orientation="6"' in xmp,
    }


def is_upright(content: bytes) -> bool:
    with PillowImage.open(io.BytesIO(content)) as file:
        values = np.asarray(file.convert("L")).astype(int)
    return values.shape == TALL and bool(values[0, 5] > values[-1, 5] + 50)


def row(name: str, deep: bool = True) -> str:
    encoder, options, makers, _ = FILES[name]
    makers = makers if deep else {}
    if encoder is None:
        picture = load_picture(next(iter(makers.values()))(), "in")
        cells = [picture.format, "L, RGB", bits(makers, False), *["-"] * 6]
        return f"| {name} | {' | '.join(cells)} |"
    source = encoder(image("RGB"), options_of(name, options))
    format_name, result = restored(source)
    before, after = said(source), said(result)
    assert not after["lying"]
    upright = fate("exif" in options, is_upright(result)).replace("kept", "turned")
    cells = [format_name, colours(encoder), bits(makers, True)]
    cells += [fate(before[key], after[key]) for key in ("profile", "exif", "xmp", "dpi", "texts")]
    return f"| {name} | {' | '.join([*cells, upright])} |"


def is_here(name: str) -> bool:
    library = FILES[name][3]
    return not library or find_spec(library) is not None


def rows() -> dict[str, str]:
    text = README.read_text()
    lines = text[text.index(BEGIN) + len(BEGIN) : text.index(END)].splitlines()
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines[2:]}


def test_the_readme_lists_every_format() -> None:
    assert list(rows()) == list(FILES)


@pytest.mark.parametrize("name", FILES)
def test_the_readme_tells_what_comes_out(name: str) -> None:
    if name == "HEIC" and not is_here(name):
        pytest.skip("needs pillow-heif")
    told, found = rows()[name].split(" | "), row(name, deep=is_here(name)).split(" | ")
    if not is_here(name):
        told[3] = found[3]  # Deep files cannot be made here.
    assert told == found, "run: python tests/test_formats.py"


@pytest.mark.skipif(find_spec("pillow_heif") is not None, reason="the reader is here")
def test_heic_names_the_extra() -> None:
    head = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    with pytest.raises(DataError) as caught:
        load_picture(head, "photo.heic")
    assert caught.value.message == "photo.heic: cannot read HEIC here."
    assert "lavps[heif]" in caught.value.hint


if __name__ == "__main__":
    text = README.read_text()
    table = "\n".join([HEADER, "|---" * HEADER.count(" | ") + "|---|", *map(row, FILES)]) + "\n"
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    README.write_text(text[:start] + table + text[end:])
