import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import torch
from PIL import ExifTags, ImageCms
from PIL import Image as PillowImage

from lavps_cli.errors import DataError, OutputError, UsageError
from lavps_cli.images import deep
from lavps_cli.images.picture import FORMATS, Metadata, Picture, quantised, to_bytes
from lavps_cli.images.reading import load_matrix, load_picture
from lavps_cli.images.writing import (
    encode,
    encode_deep,
    format_of,
    with_writable_metadata,
    write_atomic,
)

Bytes = npt.NDArray[np.uint8]


def filed(image: PillowImage.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def exif(orientation: int = 1) -> PillowImage.Exif:
    tags = PillowImage.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    tags[ExifTags.Base.Artist] = "A. Photographer"
    tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FNumber] = 2.8
    tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExifImageWidth] = 999
    tags.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    return tags


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA"])
@pytest.mark.parametrize("kind", ["png", "tiff", "webp"])
def test_eight_bits_survive_unchanged(scene: Bytes, mode: str, kind: str) -> None:
    image = PillowImage.fromarray(scene).convert("RGBA")
    image.putalpha(PillowImage.fromarray(scene[:, :, 2]))
    image = image.convert(mode)
    picture = load_picture(filed(image), "in.png")
    assert picture.grey == (mode in ("L", "LA"))
    assert (picture.alpha is None) == (mode in ("RGB", "L"))
    if kind == "webp":
        return
    again = PillowImage.open(io.BytesIO(encode(picture, kind)))
    assert again.mode == mode
    assert np.array_equal(np.asarray(again), np.asarray(image))


def test_values_are_in_range_and_exact() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = load_picture(filed(PillowImage.fromarray(levels)), "levels.png")
    assert (float(picture.pixels.min()), float(picture.pixels.max())) == (-1, 1)
    assert np.array_equal(to_bytes(picture.pixels)[:, :, 0], levels)
    assert torch.equal(quantised(picture.pixels), picture.pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_its_tag_removed(scene: Bytes, orientation: int) -> None:
    image = PillowImage.fromarray(scene)
    picture = load_picture(filed(image, exif=exif(orientation)), "in.png")
    assert picture.size == ((48, 32) if orientation < 5 else (32, 48))
    again = PillowImage.open(io.BytesIO(encode(picture, "png")))
    assert again.getexif().get(ExifTags.Base.Orientation, 1) == 1
    assert np.array_equal(np.asarray(again), to_bytes(picture.pixels))
    if orientation == 3:
        assert np.array_equal(np.asarray(again), scene[::-1, ::-1])


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "avif"])
def test_metadata_survive(scene: Bytes, kind: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = filed(
        PillowImage.fromarray(scene), "JPEG", exif=exif(6), icc_profile=profile, dpi=(300, 300)
    )
    picture = load_picture(source, "in.jpg")
    assert picture.format == "jpg"
    again = PillowImage.open(io.BytesIO(encode(picture, kind)))
    assert again.info["icc_profile"] == profile
    tags = again.getexif()
    assert tags[ExifTags.Base.Artist] == "A. Photographer"
    inner = tags.get_ifd(ExifTags.IFD.Exif)
    assert float(inner[ExifTags.Base.FNumber]) == pytest.approx(2.8)
    assert ExifTags.Base.ExifImageWidth not in inner
    assert tags.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
    if kind in ("png", "jpg"):
        assert again.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_a_plain_picture_has_no_metadata(scene: Bytes) -> None:
    assert not load_picture(filed(PillowImage.fromarray(scene)), "in.png").metadata


def test_palette_pictures(scene: Bytes) -> None:
    image = PillowImage.fromarray(scene).quantize(16)
    picture = load_picture(filed(image), "in.png")
    assert np.array_equal(to_bytes(picture.pixels), np.asarray(image.convert("RGB")))
    image.info["transparency"] = 0
    picture = load_picture(filed(image, transparency=0), "in.png")
    assert picture.alpha is not None
    assert set(picture.alpha.unique().tolist()) == {0.0, 1.0}


def test_cmyk_loses_its_profile(scene: Bytes) -> None:
    image = PillowImage.fromarray(scene).convert("CMYK")
    picture = load_picture(filed(image, "JPEG", icc_profile=b"of four inks"), "in.jpg")
    assert picture.pixels.shape == (1, 3, 32, 48)
    assert picture.metadata.icc == b""


def deep_png(colour: int) -> bytes:
    """Return a PNG of 2x2 pixels with 16 bits per channel."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    rows = b"".join(b"\0" + bytes(2 * 2 * channels) for _ in range(2))
    header = struct.pack(">IIBBBBB", 2, 2, 16, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the extra `deep`."""
    monkeypatch.setattr(deep, "is_installed", lambda: False)


@pytest.mark.parametrize("colour", [0, 2, 4, 6])
@pytest.mark.usefixtures("shallow")
def test_sixteen_bits_are_refused_not_cut(colour: int) -> None:
    with pytest.raises(DataError) as caught:
        load_picture(deep_png(colour), "scan.png")
    assert caught.value.message == (
        "scan.png has 16 bits per channel, and this installation would cut it to 8."
    )
    assert "lavps[deep]" in caught.value.hint
    assert load_picture(deep_png(colour), "scan.png", may_cut=True).depth == 8


@pytest.mark.usefixtures("shallow")
def test_sixteen_bit_tiffs_and_floats_are_refused(tmp_path: Path) -> None:
    for values in (np.zeros((4, 5, 3), np.uint16), np.zeros((4, 5), np.float32)):
        tifffile.imwrite(tmp_path / "a.tif", values)
        with pytest.raises(DataError, match="bits per channel"):
            load_picture(tmp_path / "a.tif", "a.tif")


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_several_frames_are_refused(scene: Bytes, kind: str) -> None:
    frames = [PillowImage.fromarray(np.roll(scene, 3 * i, 0)) for i in range(3)]
    content = filed(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="holds several pictures"):
        load_picture(content, "moving")


def test_a_phone_picture_with_a_second_view_is_one_picture(scene: Bytes) -> None:
    image = PillowImage.fromarray(scene)
    content = filed(image, "MPO", save_all=True, append_images=[image])
    assert load_picture(content, "in.jpg").format == "jpg"


def test_bombs_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    content = filed(PillowImage.new("L", (300, 200)))
    with pytest.raises(DataError, match=r"300x200 pixels, more than --max-pixels 59999"):
        load_picture(content, "bomb.png", 59_999)
    limit = PillowImage.MAX_IMAGE_PIXELS
    assert load_picture(content, "fine.png", 60_000).size == (300, 200)
    assert limit == PillowImage.MAX_IMAGE_PIXELS


def test_text_bombs_are_refused(scene: Bytes) -> None:
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    chunks.add_text("lavps:degradation", "x" * (1 << 22), zip=True)
    with pytest.raises(DataError):
        load_picture(filed(PillowImage.fromarray(scene), pnginfo=chunks), "in.png")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"hello", "not a picture"), (b"\x89PNG\r\n\x1a\n", "in.png")],
)
def test_what_is_no_picture(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_picture(content, "in.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "GIF"])
def test_files_cut_short_are_refused(scene: Bytes, kind: str) -> None:
    content = filed(PillowImage.fromarray(scene), kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError):
            load_picture(content[: len(content) * 2 // 3], "cut")


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load_picture(tmp_path / "a.png", "a.png")
    with pytest.raises(DataError, match="is a folder"):
        load_picture(tmp_path, "dir")


def test_matrices_keep_their_units(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "f.tif", np.array([[0.25, 7]], np.float32))
    assert load_matrix(tmp_path / "f.tif", 100).tolist() == [[0.25, 7]]
    PillowImage.fromarray(np.array([[3, 40000]], np.uint16)).save(tmp_path / "d.png")
    assert load_matrix(tmp_path / "d.png", 100).tolist() == [[3, 40000]]
    PillowImage.new("RGBA", (1, 1), (255, 255, 255, 0)).save(tmp_path / "t.png")
    assert load_matrix(tmp_path / "t.png", 100).tolist() == [[0]]
    PillowImage.new("L", (11, 10)).save(tmp_path / "l.png")
    with pytest.raises(DataError, match="11x10, larger"):
        load_matrix(tmp_path / "l.png", 100)


def test_formats_by_name() -> None:
    assert format_of(Path("a.JPEG")) == "jpg"
    with pytest.raises(UsageError, match=r"\.xyz"):
        format_of(Path("a.xyz"))
    with pytest.raises(UsageError):
        format_of(Path("noname"))


def test_transparency_needs_a_format_that_holds_it(scene: Bytes) -> None:
    image = PillowImage.fromarray(scene).convert("RGBA")
    picture = load_picture(filed(image), "in.png")
    with pytest.raises(OutputError, match="transparency"):
        encode(picture, "jpg")


def test_quality_reaches_the_encoder(scene: Bytes) -> None:
    picture = load_picture(filed(PillowImage.fromarray(scene)), "in.png")
    for name in ("jpg", "webp", "avif"):
        assert len(encode(picture, name, 20)) < len(encode(picture, name, 95))
    assert set(FORMATS) == {"png", "jpg", "webp", "tiff", "avif", "npy"}


def test_deep_maps() -> None:
    values = torch.tensor([[0, 0.5], [1 / 65535, 1]])
    image = PillowImage.open(io.BytesIO(encode_deep(values)))
    assert np.asarray(image).tolist() == [[0, 32768], [1, 65535]]


def test_writes_are_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.png"
    write_atomic(path, b"one")

    def broken(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", broken)
    with pytest.raises(OutputError, match="No space left"):
        write_atomic(path, b"two")
    assert path.read_bytes() == b"one"
    assert [p.name for p in tmp_path.iterdir()] == ["out.png"]


def test_pictures_of_the_api_need_no_file() -> None:
    assert Picture(torch.zeros(1, 3, 4, 5)).size == (5, 4)


def test_damaged_metadata_do_not_cost_the_picture(
    scene: Bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: PillowImage.Exif, tag: int) -> dict[int, Any]:
        raise KeyError(tag)

    source = filed(PillowImage.fromarray(scene), "PNG", exif=exif(6))
    monkeypatch.setattr(PillowImage.Exif, "get_ifd", broken)
    picture = load_picture(source, "in.png")
    assert picture.metadata.partial
    assert picture.metadata.exif == b""


def test_tiffs_keep_what_they_can(scene: Bytes) -> None:
    source = filed(PillowImage.fromarray(scene), "JPEG", exif=exif(8), dpi=(300, 300))
    again = PillowImage.open(io.BytesIO(encode(load_picture(source, "in.jpg"), "tiff")))
    assert again.getexif()[ExifTags.Base.Artist] == "A. Photographer"
    assert again.size == (32, 48)
    assert again.info["dpi"] == pytest.approx((300, 300))


def test_metadata_that_do_not_fit_are_left_out() -> None:
    picture = Picture(torch.zeros(1, 3, 2, 2), metadata=Metadata(exif=b"Exif\0\0" + bytes(70_000)))
    assert with_writable_metadata(picture, "png").metadata == picture.metadata
    assert with_writable_metadata(picture, "jpg").metadata == Metadata(partial=True)


def test_pipes_by_name(scene: Bytes, tmp_path: Path) -> None:
    import os
    import threading

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    content = filed(PillowImage.fromarray(scene))
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    assert load_picture(pipe, "pipe").size == (48, 32)
    writer.join()
