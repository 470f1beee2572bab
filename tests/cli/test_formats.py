"""Depth, transparency, profiles, pages and metadata from the command line."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import ExifTags, ImageCms, PngImagePlugin
from PIL import Image as PillowImage
from typer.testing import Result

from lavps_cli.images import deep

Lavps = Callable[..., Result]
Lines = Callable[[Result], list[dict[str, Any]]]
Bytes = npt.NDArray[np.uint8]
DENOISE = ("--task", "denoise", "--noise", "0.1")


@pytest.fixture
def told(photo: Path, scene: Bytes) -> Path:
    """The photo with everything that a JPEG can say."""
    tags = PillowImage.Exif()
    tags[ExifTags.Base.Artist] = "A. Photographer"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = photo.with_name("told.jpg")
    PillowImage.fromarray(scene).save(
        path, exif=tags, icc_profile=profile, dpi=(300, 300), comment=b"mine"
    )
    return path


def test_metadata_are_kept_or_stripped(restore: Lavps, lines: Lines, told: Path) -> None:
    (kept,) = lines(restore(told, *DENOISE, "--json"))
    assert kept["metadata"] == "kept"
    with PillowImage.open(kept["output"]) as image:
        assert image.getexif()[ExifTags.Base.Artist] == "A. Photographer"
        assert {"icc_profile", "dpi", "comment"} <= set(image.info)
    (bare,) = lines(restore(told, *DENOISE, "--json", "--metadata", "strip", "-f"))
    assert bare["metadata"] == "stripped"
    assert bare["settings"] != kept["settings"]
    with PillowImage.open(bare["output"]) as image:
        assert not image.getexif()
        assert not {"icc_profile", "exif", "comment"} & set(image.info)


def test_what_a_format_cannot_say_is_told(
    restore: Lavps, lines: Lines, told: Path, tmp_path: Path
) -> None:
    (line,) = lines(restore(told, *DENOISE, "--json", "-o", tmp_path / "out.webp"))
    assert line["metadata"] == "partial"


def turned_profile() -> bytes:
    """Return a profile in which red means green, and green red."""
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return icc.replace(b"rXYZ", b"kXYZ").replace(b"gXYZ", b"rXYZ").replace(b"kXYZ", b"gXYZ")


def test_deep_results_of_another_profile_need_the_extra(
    restore: Lavps, photo: Path, scene: Bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deep, "is_installed", lambda: False)
    PillowImage.fromarray(scene).save(photo, icc_profile=turned_profile())
    refused = restore(photo, *DENOISE, "--bit-depth", "16")
    assert refused.exit_code == 4
    assert "lavps[deep]" in refused.stderr
    stripped = restore(photo, *DENOISE, "--bit-depth", "16", "--metadata", "strip")
    assert stripped.exit_code == 0


def test_inpainting_keeps_known_pixels_of_another_profile(
    restore: Lavps, lines: Lines, photo: Path, scene: Bytes
) -> None:
    path, icc = photo.with_name("turned.png"), turned_profile()
    PillowImage.fromarray(scene).save(path, icc_profile=icc)
    mask = np.zeros((32, 48), np.uint8)
    mask[10:20, 10:30] = 255
    PillowImage.fromarray(mask).save(photo.with_name("mask.png"))
    (line,) = lines(restore(path, "--mask", photo.with_name("mask.png"), "--json"))
    with PillowImage.open(line["output"]) as image:
        assert image.info["icc_profile"] == icc
        values = np.asarray(image)
    assert np.array_equal(values[mask == 0], scene[mask == 0])
    assert not np.array_equal(values[mask > 0], scene[mask > 0])


@pytest.mark.parametrize("alpha", ["keep", "drop", "restore"])
def test_transparency(restore: Lavps, photo: Path, scene: Bytes, alpha: str) -> None:
    image = PillowImage.fromarray(scene).convert("RGBA")
    opacity = np.zeros((32, 48), np.uint8)
    opacity[8:24, 8:40] = 255
    image.putalpha(PillowImage.fromarray(opacity))
    path = photo.with_name("cut-out.png")
    image.save(path)
    result = restore(path, "--scale", "2", "--alpha", alpha, "--samples", "2")
    assert result.exit_code == 0, result.output
    files = result.stdout.splitlines()
    with PillowImage.open(files[0]) as one, PillowImage.open(files[1]) as two:
        assert one.mode == ("RGB" if alpha == "drop" else "RGBA")
        if alpha == "drop":
            return
        first, second = np.asarray(one)[:, :, 3], np.asarray(two)[:, :, 3]
    assert first.shape == (64, 96)
    assert np.array_equal(first, second) == (alpha == "keep")


def test_transparency_can_be_dropped_for_jpeg(restore: Lavps, photo: Path, tmp_path: Path) -> None:
    with PillowImage.open(photo) as image:
        image.convert("RGBA").save(photo.with_name("a.png"))
    refused = restore(photo.with_name("a.png"), *DENOISE, "-o", tmp_path / "a.jpg")
    assert refused.exit_code == 4
    assert "--alpha drop" in refused.stderr
    path = photo.with_name("a.png")
    assert restore(path, *DENOISE, "-o", tmp_path / "a.jpg", "--alpha", "drop").exit_code == 0


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_written_on_request(
    restore: Lavps, photo: Path, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"out.{suffix}"
    assert restore(photo, *DENOISE, "-o", out, "--bit-depth", "16").exit_code == 0
    if suffix == "tif":
        values = tifffile.imread(out)
        assert (values.dtype, values.shape) == (np.uint16, (32, 48, 3))
        assert len(np.unique(values)) > 256
    else:
        assert out.read_bytes()[24] == 16  # The depth in IHDR.


def test_arrays_come_back_as_arrays(
    restore: Lavps, lines: Lines, photo: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    with PillowImage.open(photo) as image:
        y = np.asarray(image) / 127.5 - 1 + 0.1 * rng.standard_normal((32, 48, 3))
    np.save(tmp_path / "y.npy", y)
    (line,) = lines(restore(tmp_path / "y.npy", *DENOISE, "--json"))
    assert line["output"] == str(tmp_path / "y.restored.npy")
    values = np.load(line["output"])
    assert (values.dtype, values.shape) == (np.float32, (32, 48, 3))
    (line,) = lines(restore(tmp_path / "y.npy", *DENOISE, "--json", "-o", tmp_path / "x.jpg"))
    assert "32 bits per channel, the jpg 8" in line["warnings"][0]


def test_without_the_extra_deep_files_are_refused_or_cut_on_request(
    restore: Lavps, photo: Path, scene: Bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deep, "is_installed", lambda: False)
    path = photo.with_name("scan.tif")
    tifffile.imwrite(path, scene.astype(np.uint16) * 257, photometric="rgb")
    refused = restore(path, *DENOISE)
    assert refused.exit_code == 3
    assert 'pip install "lavps[deep]"' in refused.stderr
    assert restore(path, *DENOISE, "--bit-depth", "8").exit_code == 0


def test_the_extra_keeps_depth_through_degrade_and_restore(
    lavps: Lavps, restore: Lavps, photo: Path, scene: Bytes
) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    path = photo.with_name("scan.png")
    path.write_bytes(imagecodecs.png_encode(scene.astype(np.uint16) * 257))
    assert lavps("degrade", path, "--mask", "centre", "--noise", "0").exit_code == 0
    made = photo.with_name("scan.degraded.png")
    result = restore(made)
    assert result.exit_code == 0, result.output
    values = imagecodecs.png_decode(Path(result.stdout.strip()).read_bytes())
    assert values.dtype == np.uint16
    assert np.array_equal(values[0], scene[0].astype(np.uint16) * 257)  # Known, so bit for bit.


def test_pages(lavps: Lavps, restore: Lavps, photo: Path, scene: Bytes) -> None:
    frames = [PillowImage.fromarray(np.roll(scene, 9 * i, 0)) for i in range(2)]
    path = photo.with_name("book.tif")
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert restore(path, *DENOISE).exit_code == 3
    first, second = (restore(path, *DENOISE, "--page", n, "-f", "-o", "-") for n in ("1", "2"))
    assert first.exit_code == second.exit_code == 0
    assert first.stdout_bytes != second.stdout_bytes
    assert lavps("degrade", path, "--page", "2", "--scale", "2", "-o", "-").exit_code == 0


def test_texts_travel_but_the_record_does_not(lavps: Lavps, restore: Lavps, photo: Path) -> None:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("Title", "a title")
    with PillowImage.open(photo) as image:
        image.save(photo, pnginfo=chunks)
    made = lavps("degrade", photo, "--scale", "2", "-o", "-")
    with PillowImage.open(io.BytesIO(made.stdout_bytes)) as image:
        assert set(image.text) == {"Title", "lavps:degradation"}
    result = restore("-", "-o", "-", stdin=made.stdout_bytes)
    with PillowImage.open(io.BytesIO(result.stdout_bytes)) as image:
        assert set(image.text) == {"Title"}
