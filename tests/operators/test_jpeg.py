import io

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from PIL import ImageOps
from torch import Tensor

from lavps_cli.errors import DataError
from lavps_cli.images.picture import from_levels
from lavps_cli.images.reading import load_picture
from lavps_cli.operators.jpeg import JpegCoefficients, cosines, turned, turned_back
from lavps_cli.pipeline.compression import compressed

SAMPLINGS = {"4:4:4": (1, 1), "4:2:2": (1, 2), "4:2:0": (2, 2)}


def smooth(h: int, w: int, c: int = 3) -> Tensor:
    """A picture far from black and white, so that nothing is clipped."""
    x = torch.rand(1, c, h // 4 + 1, w // 4 + 1, generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.interpolate(x, size=(h, w), mode="bilinear")
    return x - 0.5


def levels(x: Tensor) -> PillowImage.Image:
    values = ((x[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    return PillowImage.fromarray(values.squeeze(-1) if values.shape[2] == 1 else values)


def jpeg(picture: PillowImage.Image, quality: int, sampling: str, orientation: int = 1) -> bytes:
    out = io.BytesIO()
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    picture.save(out, "JPEG", quality=quality, subsampling=sampling, exif=exif)
    return out.getvalue()


@pytest.mark.parametrize("quality", [10, 50, 90])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_file_holds_the_rounded_coefficients_of_its_picture(quality: int, sampling: str) -> None:
    picture = levels(smooth(48, 64))
    x = from_levels(np.asarray(picture))
    found = compressed(load_picture(jpeg(picture, quality, sampling), "a"), "a", None)
    assert found.A.sampling == SAMPLINGS[sampling]
    step = found.sigma_y * 12**0.5
    off = (found.y - found.A(x)).abs() / step
    # Half a step of rounding; encoders compute in whole numbers, which weighs at steps of a level.
    assert off.quantile(0.99) < (0.55 if quality < 90 else 0.8)
    assert off.max() < 1.5


def test_a_grey_file_is_one_measurement_in_three_channels() -> None:
    picture = levels(smooth(16, 24, 1))
    found = compressed(load_picture(jpeg(picture, 30, "4:4:4"), "a"), "a", None)
    x = from_levels(np.asarray(picture)[:, :, None]).expand(1, 3, -1, -1)
    step = found.sigma_y * 12**0.5 / 3**0.5
    assert ((found.y - found.A(x)).abs() / step).max() < 0.6


@pytest.mark.parametrize("size", [(30, 44), (16, 16), (17, 1), (9, 33)])
def test_the_scene_holds_whole_blocks_and_shows_the_picture(size: tuple[int, int]) -> None:
    x = smooth(*size)
    for orientation in (1, 3, 6, 8):
        shown = load_picture(jpeg(levels(x), 95, "4:2:0", orientation), "a")
        found = compressed(shown, "a", None)
        (top, left), (h, w) = found.corner, shown.pixels.shape[-2:]
        decoded = found.A.pinv(found.y)
        assert decoded.shape[-2:] == found.shape
        seen = decoded[..., top : top + h, left : left + w]
        assert seen.shape == shown.pixels.shape
        assert (seen.mean(1) - shown.pixels.mean(1)).abs().mean() < 0.03


def test_a_picture_that_left_its_file_is_read_by_its_quality() -> None:
    picture = levels(smooth(32, 32))
    content = jpeg(picture, 30, "4:2:0")
    own = compressed(load_picture(content, "a"), "a", None)
    out = io.BytesIO()
    PillowImage.open(io.BytesIO(content)).save(out, "PNG")
    again = compressed(load_picture(out.getvalue(), "a"), "a", 30)
    assert torch.equal(own.A.steps, again.A.steps)
    assert ((own.y - again.y).abs() > 1e-6).float().mean() < 0.01


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_is_that_of_exif_and_can_be_undone(orientation: int) -> None:
    x = smooth(3, 5)
    file = levels(x)
    file.getexif()[0x0112] = orientation
    upright = from_levels(np.asarray(ImageOps.exif_transpose(file)))
    assert torch.equal(turned(from_levels(np.asarray(file)), orientation), upright)
    assert torch.equal(turned_back(turned(x, orientation), orientation), x)


def test_within_leaves_what_fits_and_brings_the_rest_into_reach() -> None:
    A = JpegCoefficients(torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)) + 1)
    x, y = smooth(16, 16).double(), A(smooth(16, 16).double())
    torch.testing.assert_close(A.within(x, y + 0.4, 0.5), x)
    far = A.within(x, y + 3, 0.5)
    torch.testing.assert_close(A(far), y + 2.5)


def test_the_cosines_are_orthonormal_and_begin_with_the_mean() -> None:
    waves = cosines()
    torch.testing.assert_close(waves @ waves.mT, torch.eye(8, dtype=torch.float64))
    torch.testing.assert_close(waves[0], torch.full((8,), 8**-0.5, dtype=torch.float64))


def test_other_files_are_refused() -> None:
    out = io.BytesIO()
    PillowImage.new("CMYK", (16, 16)).save(out, "JPEG")
    with pytest.raises(DataError, match="4 inks"):
        compressed(load_picture(out.getvalue(), "a"), "a", None)
