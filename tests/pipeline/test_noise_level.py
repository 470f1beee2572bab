import pytest
import torch

from lavps_cli.images.picture import quantised
from lavps_cli.pipeline.noise_level import FLOOR, estimate_noise


def scene(c: int, h: int, w: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 1, h), torch.linspace(0, 1, w), indexing="ij")
    smooth = 0.5 * torch.sin(5 * x + 3 * y)
    edges = (smooth + 0.3 * (x > 0.6).float()).expand(c, h, w)
    return edges[None].contiguous()


def noisy(x: torch.Tensor, sigma: float, seed: int = 0) -> torch.Tensor:
    return x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sigma", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("channels", [1, 3])
def test_it_finds_the_noise_of_a_scene_with_edges(channels: int, sigma: float) -> None:
    y = quantised(noisy(scene(channels, 128, 160), sigma))
    assert estimate_noise(y) == pytest.approx(sigma, rel=0.12)


def test_clean_pictures_have_the_floor() -> None:
    assert estimate_noise(quantised(scene(3, 64, 64))) == FLOOR
    assert estimate_noise(torch.ones(1, 3, 40, 40)) == FLOOR


def test_texture_in_half_of_the_picture_does_not_count() -> None:
    x = scene(1, 128, 128)
    x[..., 64:] += 0.3 * torch.randn(128, 64, generator=torch.Generator().manual_seed(1))
    assert estimate_noise(noisy(x, 0.03)) == pytest.approx(0.03, rel=0.15)


def test_clipped_parts_do_not_count() -> None:
    x = scene(3, 128, 128)
    x[..., :100] = 1.3
    assert estimate_noise(noisy(x, 0.05).clamp(-1, 1)) == pytest.approx(0.05, rel=0.15)


def test_unknown_pixels_do_not_count() -> None:
    x = noisy(scene(3, 96, 96), 0.05)
    mask = torch.ones(1, 96, 96)
    mask[:, 20:70, 20:70] = 0
    assert estimate_noise(mask * x, mask) == pytest.approx(0.05, rel=0.15)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (3, 3), (5, 17)])
def test_small_pictures(size: tuple[int, int]) -> None:
    y = noisy(torch.zeros(1, 3, *size), 0.1)
    assert FLOOR <= estimate_noise(y) < 0.5
