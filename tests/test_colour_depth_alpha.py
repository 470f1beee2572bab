"""Colour profiles, depths and transparency: what a file holds comes back."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import torch
from PIL import ExifTags, ImageCms
from PIL import Image as PillowImage
from torch.nn.functional import avg_pool2d

from lavps_cli.errors import DataError, OutputError
from lavps_cli.images.alpha import solid_colours
from lavps_cli.images.colour import beyond_srgb, in_own_colours
from lavps_cli.images.picture import Metadata, Picture, quantised, to_bytes
from lavps_cli.images.reading import load_picture
from lavps_cli.images.writing import encode, with_writable_metadata

Bytes = npt.NDArray[np.uint8]


def filed(image: PillowImage.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def turned_profile() -> bytes:
    """Return a profile in which red means green, and green red."""
    icc = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    head = 128 + 4 + 12 * int.from_bytes(icc[128:132], "big")
    for at in range(132, head, 12):
        names = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}
        icc[at : at + 4] = names.get(bytes(icc[at : at + 4]), icc[at : at + 4])
    return bytes(icc)


def test_profiles_are_followed_and_restored(scene: Bytes) -> None:
    icc = turned_profile()
    content = filed(PillowImage.fromarray(scene), icc_profile=icc)
    picture = load_picture(content, "in.png")
    seen = to_bytes(picture.pixels).astype(int)
    assert abs(seen - scene[:, :, [1, 0, 2]]).max() <= 1
    own = in_own_colours(picture.pixels, picture, 8)
    again = PillowImage.open(io.BytesIO(encode(replace(picture, pixels=own), "png")))
    assert again.info["icc_profile"] == icc
    assert abs(np.asarray(again).astype(int) - scene).max() <= 1
    assert float(beyond_srgb(picture, (32, 48)).abs().max()) == 0


def test_srgb_itself_changes_nothing(scene: Bytes) -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = load_picture(filed(PillowImage.fromarray(scene), icc_profile=icc), "in.png")
    assert picture.stored is None
    assert np.array_equal(to_bytes(picture.pixels), scene)
    assert picture.metadata.icc == icc


@pytest.mark.parametrize("icc", [b"junk", turned_profile()[:200]])
def test_damaged_profiles_are_left_out_aloud(scene: Bytes, icc: bytes) -> None:
    picture = load_picture(filed(PillowImage.fromarray(scene), icc_profile=icc), "in.png")
    assert np.array_equal(to_bytes(picture.pixels), scene)
    assert picture.metadata == Metadata(partial=True)
    assert "profile of in.png is left out" in picture.notes[0]


def test_a_profile_of_colours_does_not_fit_grey(scene: Bytes) -> None:
    grey = PillowImage.fromarray(scene[:, :, 0])
    picture = load_picture(filed(grey, icc_profile=turned_profile()), "in.png")
    assert picture.grey
    assert picture.metadata.partial


def test_what_a_format_cannot_say_leaves_srgb(scene: Bytes) -> None:
    content = filed(PillowImage.fromarray(scene), icc_profile=turned_profile(), dpi=(300, 300))
    picture = with_writable_metadata(load_picture(content, "in.png"), "npy")
    assert picture.stored is None
    assert picture.metadata == Metadata(partial=True)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_tiffs_hold_every_depth(channels: int, dtype: str) -> None:
    values = np.random.default_rng(0).random((7, 5, channels))
    top = 1 if dtype == "float32" else np.iinfo(dtype).max
    stored = (values * top).astype(dtype)
    planes = torch.from_numpy(values).permute(2, 0, 1)[None].float()
    colours = 3 if channels > 2 else 1
    alpha = planes[:, colours:] if channels in (2, 4) else None
    depth = {"uint8": 8, "uint16": 16, "float32": 32}[dtype]
    picture = Picture(planes[:, :colours] * 2 - 1, alpha, depth=depth)
    read = tifffile.imread(io.BytesIO(encode(picture, "tiff"))).reshape(7, 5, channels)
    assert read.dtype == dtype
    assert abs(read.astype(float) - stored).max() <= (1e-6 if depth == 32 else 1)


def test_pngs_of_sixteen_bits_are_read_by_others() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (150, 7)).astype(np.uint16)
    values[:5] = np.arange(7) * 9000  # Rows that each filter is best for.
    grey = Picture(torch.from_numpy(values.astype(np.float32))[None, None] / 32767.5 - 1, depth=16)
    read = PillowImage.open(io.BytesIO(encode(grey, "png")))
    assert np.array_equal(np.asarray(read), values)
    colour = replace(grey, pixels=grey.pixels.expand(-1, 3, -1, -1), alpha=(grey.pixels + 1) / 2)
    high = np.asarray(PillowImage.open(io.BytesIO(encode(colour, "png"))))  # Pillow cuts it.
    assert np.array_equal(high, np.repeat((values >> 8)[:, :, None], 4, 2))


def test_deep_files_come_back_bit_for_bit() -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    rng = np.random.default_rng(0)
    for shape in ((6, 5), (6, 5, 2), (6, 5, 3), (6, 5, 4)):
        values = rng.integers(0, 65536, shape).astype(np.uint16)
        picture = load_picture(bytes(imagecodecs.png_encode(values)), "in.png")
        assert (picture.depth, picture.format) == (16, "png")
        assert np.array_equal(imagecodecs.png_decode(encode(picture, "png")), values)
        again = load_picture(encode(picture, "tiff"), "in.tif")
        assert torch.equal(again.pixels, picture.pixels)
        assert (again.depth, again.format) == (16, "tiff")


def test_deep_profiles_are_followed_in_full_depth(scene: Bytes) -> None:
    pytest.importorskip("imagecodecs")
    values = scene.astype(np.float32) / 127.5 - 1 + 0.001
    deep = Picture(torch.from_numpy(values).permute(2, 0, 1)[None].clamp(-1, 1), depth=16)
    deep = replace(deep, metadata=Metadata(icc=turned_profile()))
    picture = load_picture(encode(deep, "png"), "in.png")
    assert float((picture.pixels - deep.pixels[:, [1, 0, 2]]).abs().max()) < 0.01
    own = in_own_colours(picture.pixels, picture, 16)
    assert float((own - deep.pixels).abs().max()) < 1e-3


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 6, 7])
def test_tiffs_are_turned_once(scene: Bytes, orientation: int, compression: str | None) -> None:
    tags = PillowImage.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    image = PillowImage.fromarray(scene)
    upright = load_picture(filed(image, exif=tags), "in.png")
    turned = load_picture(filed(image, "TIFF", exif=tags, compression=compression), "in.tif")
    assert torch.equal(turned.pixels, upright.pixels)


def test_deep_tiffs_are_turned_too(scene: Bytes) -> None:
    pytest.importorskip("imagecodecs")
    stream = io.BytesIO()
    values = scene.astype(np.uint16) * 257
    tifffile.imwrite(stream, values, photometric="rgb", extratags=[(274, 3, 1, 6, True)])
    picture = load_picture(stream.getvalue(), "in.tif")
    assert picture.size == (32, 48)
    assert np.array_equal(to_bytes(picture.pixels), np.rot90(scene, -1))


@pytest.mark.parametrize("may_cut", [True, False])
def test_numbers_without_a_white_are_refused(may_cut: bool) -> None:
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.zeros((4, 5), np.uint32))
    with pytest.raises(DataError, match=r"read whole|32 bits"):
        load_picture(stream.getvalue(), "in.tif", may_cut=may_cut)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_twelve_bits_reach_white(bits: int) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    values = np.array([[0, 2**bits - 1] * 4], np.uint16)
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        packed = imagecodecs.packints_encode(values.ravel(), bits)
        writer.write(
            iter([packed]), shape=values.shape, dtype="uint16", bitspersample=bits, rowsperstrip=1
        )
    picture = load_picture(stream.getvalue(), "in.tif")
    assert picture.depth == 16
    assert picture.pixels[0, 0, 0].tolist() == [-1, 1] * 4


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3), (3, 4, 5), (1, 4, 5)])
def test_arrays_keep_what_noise_takes_beyond_black(shape: tuple[int, ...], dtype: str) -> None:
    values = np.linspace(-1.5, 1.5, int(np.prod(shape))).reshape(shape).astype(dtype)
    stream = io.BytesIO()
    np.save(stream, values)
    picture = load_picture(stream.getvalue(), "y.npy")
    assert (picture.size, picture.format, picture.depth) == ((5, 4), "npy", 32)
    assert float(picture.pixels.min()) == pytest.approx(-1.5, abs=1e-3)
    again = np.load(io.BytesIO(encode(picture, "npy")))
    assert again.dtype == np.float32
    first = shape[0] in (1, 3)
    same = np.moveaxis(values, 0, -1) if first else values
    np.testing.assert_allclose(again, same.reshape(again.shape), atol=2e-3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((4, 4), 200.0), "beyond black and white"),
        (np.full((4, 4), np.nan), "no numbers"),
        (np.zeros((2, 4, 4)), "shape"),
        (np.zeros(4), "shape"),
        (np.zeros((4, 4), complex), "complex"),
        (np.zeros((4, 4), np.int64), "int64"),
        (np.array([[None]]), "object"),
        (np.zeros((300, 300)), "more than --max-pixels"),
    ],
)
def test_arrays_that_are_no_pictures(values: Any, message: str) -> None:
    stream = io.BytesIO()
    np.save(stream, values)
    with pytest.raises(DataError, match=message):
        load_picture(stream.getvalue(), "y.npy", 10_000)


def test_an_array_that_lies_about_its_size_is_not_believed() -> None:
    stream = io.BytesIO()
    np.save(stream, np.zeros((4, 4)))
    with pytest.raises(DataError, match="ends early"):
        load_picture(stream.getvalue().replace(b"(4, 4)", b"(9999, 9999)"), "y.npy")


def test_deep_results_need_a_format_that_holds_them() -> None:
    picture = Picture(torch.zeros(1, 3, 2, 2), depth=16)
    with pytest.raises(OutputError, match="jpg holds 8 bits"):
        encode(picture, "jpg")
    x = torch.tensor([0.1]).view(1, 1, 1, 1)
    assert float((quantised(x, 16) - x).abs()) < float((quantised(x, 8) - x).abs())


@pytest.mark.parametrize("rubbish", [-1.0, 1.0])
def test_invisible_colours_leave_no_halo(rubbish: float) -> None:
    alpha = torch.zeros(1, 1, 33, 41)
    alpha[..., 9:20, 5:30] = 1
    alpha[..., 9, 5:30] = 0.5
    colour = torch.tensor([0.8, -0.6, 0.1]).view(1, 3, 1, 1)
    pixels = torch.where(alpha > 0, colour, torch.full((1, 3, 33, 41), rubbish))
    solid = solid_colours(pixels, alpha)
    assert torch.allclose(solid, colour.expand_as(solid), atol=1e-5)
    assert not torch.allclose(avg_pool2d(pixels, 3, 1), avg_pool2d(solid, 3, 1), atol=0.1)


def test_visible_colours_stay(scene: Bytes) -> None:
    image = PillowImage.fromarray(scene).convert("RGBA")
    image.putalpha(PillowImage.fromarray(scene[:, :, 2] // 64 * 64))
    picture = load_picture(filed(image), "in.png")
    solid = solid_colours(picture.pixels, picture.alpha)
    assert picture.alpha is not None
    seen = (picture.alpha > 0).expand_as(solid)
    assert torch.equal(solid[seen], picture.pixels[seen])
    opaque = torch.ones_like(picture.alpha)
    assert solid_colours(picture.pixels, opaque) is picture.pixels
    assert solid_colours(picture.pixels, opaque * 0) is picture.pixels


@pytest.mark.parametrize("content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"8BPS"])
def test_kinds_that_run_programs_or_cut_are_not_opened(content: bytes) -> None:
    with pytest.raises(DataError, match="not a picture that can be read"):
        load_picture(content, "in.eps")


def test_pages_are_chosen(scene: Bytes, tmp_path: Path) -> None:
    frames = [PillowImage.fromarray(np.roll(scene, 3 * i, 0)) for i in range(3)]
    for kind in ("PNG", "TIFF"):
        content = filed(frames[0], kind, save_all=True, append_images=frames[1:])
        for page in (1, 2, 3):
            picture = load_picture(content, "moving", page=page)
            assert np.array_equal(to_bytes(picture.pixels), np.asarray(frames[page - 1])), kind
        with pytest.raises(DataError, match="no picture 4"):
            load_picture(content, "moving", page=4)
