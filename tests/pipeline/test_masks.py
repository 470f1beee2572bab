from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from lavps_cli.errors import DataError, UsageError
from lavps_cli.images.picture import Picture
from lavps_cli.pipeline.masks import draw_mask, is_scattered, read_mask

PICTURE = Picture(torch.zeros(1, 3, 4, 6))
WHITE = np.zeros((4, 6), np.uint8)
WHITE[1:3, 2:5] = 255
KNOWN = torch.from_numpy((WHITE == 0).astype(np.float32))[None]


def saved(path: Path, image: PillowImage.Image) -> str:
    image.save(path)
    return str(path)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "1", "P", "LA"])
def test_white_means_fill_in_every_mode(tmp_path: Path, mode: str) -> None:
    spec = saved(tmp_path / "m.png", PillowImage.fromarray(WHITE).convert(mode))
    assert torch.equal(read_mask(spec, PICTURE, "in").values, KNOWN)
    inverted = read_mask(spec, PICTURE, "in", invert=True)
    assert torch.equal(inverted.values, 1 - KNOWN)


def test_half_is_the_threshold_and_ones_are_white(tmp_path: Path) -> None:
    grey = np.where(WHITE > 0, 128, 127).astype(np.uint8)
    for values in (grey, WHITE // 255, (WHITE.astype(np.uint16) * 257)):
        spec = saved(tmp_path / "m.png", PillowImage.fromarray(values))
        assert torch.equal(read_mask(spec, PICTURE, "in").values, KNOWN)


def test_sizes_must_agree_unless_asked(tmp_path: Path) -> None:
    large = PillowImage.fromarray(WHITE).resize((12, 8), PillowImage.Resampling.NEAREST)
    spec = saved(tmp_path / "m.png", large)
    with pytest.raises(DataError) as caught:
        read_mask(spec, PICTURE, "in.png")
    assert caught.value.message == f"{spec} is 12x8 but in.png is 6x4."
    assert caught.value.hint == "Scale the mask:  --resize-mask"
    assert torch.equal(read_mask(spec, PICTURE, "in.png", resize=True).values, KNOWN)


@pytest.mark.parametrize("level", [0, 255])
def test_masks_that_leave_nothing_to_do(tmp_path: Path, level: int) -> None:
    spec = saved(tmp_path / "m.png", PillowImage.new("L", (6, 4), level))
    with pytest.raises(DataError, match="everything" if level else "nothing"):
        read_mask(spec, PICTURE, "in")


def test_transparency_as_mask() -> None:
    alpha = KNOWN[None] * 0.7 + 0.1
    picture = Picture(torch.zeros(1, 3, 4, 6), alpha)
    assert torch.equal(read_mask("alpha", picture, "in").values, KNOWN)
    with pytest.raises(DataError, match="no transparency"):
        read_mask("alpha", PICTURE, "in")


def test_draws_depend_on_the_seed_alone() -> None:
    for kind in ("rectangle", "pixels"):
        one = draw_mask(kind, 30, 20, 1)
        assert torch.equal(one.values, draw_mask(kind, 30, 20, 1).values)
        assert not torch.equal(one.values, draw_mask(kind, 30, 20, 2).values)
        assert one.values.shape == (1, 20, 30)
    with pytest.raises(UsageError):
        draw_mask("stars", 30, 20, 1)


def test_dots_and_scratches_are_scattered_and_patches_are_not() -> None:
    for seed in range(5):
        assert is_scattered(draw_mask("pixels", 64, 64, seed).values)
        assert not is_scattered(draw_mask("rectangle", 64, 64, seed).values)
    lines = torch.ones(1, 64, 64)
    lines[:, 8::16, :] = lines[:, :, 20:24] = 0
    assert is_scattered(lines)
    lines[:, 40:56, 30:60] = 0
    assert not is_scattered(lines)


@pytest.mark.parametrize(("soft", "doubtful"), [(0, False), (4, False), (64, True)])
def test_a_photograph_is_doubted_as_a_mask(tmp_path: Path, soft: int, doubtful: bool) -> None:
    ramp = (np.arange(64)[None].repeat(48, 0) - 32.0) / max(soft, 1) + 0.5
    levels = (ramp.clip(0, 1) * 255).astype(np.uint8)
    PillowImage.fromarray(levels).save(tmp_path / "m.png")
    found = read_mask(str(tmp_path / "m.png"), Picture(torch.zeros(1, 3, 48, 64)), "x")
    assert found.doubtful == doubtful
