from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lavps_cli.core.denoiser import Denoiser
from lavps_cli.core.schedule import Flow
from lavps_cli.errors import UsageError
from lavps_cli.models.analytic import GaussianPrior
from lavps_cli.models.tiled import (
    TiledDenoiser,
    blend_windows,
    num_windows,
    pixels_in_calls,
    window_starts,
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


KERNEL = random(2, 3, 3, 3, seed=9)


def network(x: Tensor) -> Tensor:
    """A map of three channels to two that looks at a pixel's neighbours."""
    return F.conv2d(x, KERNEL, padding=1).sin()


def ragged(x: Tensor) -> Tensor:
    """A map whose result depends on where a pixel is in its window."""
    return x * torch.linspace(0.5, 1.5, x.shape[-1], dtype=x.dtype)


def only(*allowed: int) -> Callable[[Tensor], Tensor]:
    """The identity for windows of these sides, and a failure for any other."""

    def same(x: Tensor) -> Tensor:
        assert x.shape[-2] in allowed
        assert x.shape[-1] in allowed
        return x

    return same


def windows_at_once(patch: pytest.MonkeyPatch, pixels: int) -> None:
    """Have windows go through the network with so many pixels in a call."""
    patch.setattr("lavps_cli.models.tiled.CALL_PIXELS", pixels)


SIZES = [(1, 1), (1, 30), (5, 3), (8, 8), (8, 9), (15, 16), (17, 31), (40, 13)]
each_size = pytest.mark.parametrize(("h", "w"), SIZES)


@pytest.mark.parametrize("tile", [8, 12])
@pytest.mark.parametrize("overlap", [0, 1, 3, 7])
def test_windows_go_from_border_to_border_and_share_the_overlap(tile: int, overlap: int) -> None:
    for length in range(1, 60):
        starts = window_starts(length, tile, overlap)
        assert starts[0] == 0
        if length <= tile:
            assert starts == [0]
            continue
        assert starts[-1] + tile == length
        gaps = [b - a for a, b in pairwise(starts)]
        assert min(gaps) >= 1
        assert max(gaps) <= tile - overlap
        assert max(gaps) - min(gaps) <= 1
        fewer = (len(gaps) - 1) * (tile - overlap) + tile
        assert fewer < length


@each_size
@pytest.mark.parametrize("overlap", [0, 3, 7])
def test_every_window_has_the_size_and_the_picture_comes_back(h: int, w: int, overlap: int) -> None:
    x = random(2, 3, h, w)
    out = blend_windows(only(8), x, tile=8, overlap=overlap, multiple=4)
    torch.testing.assert_close(out, x, rtol=1e-14, atol=1e-14)


@each_size
def test_weights_sum_to_one(h: int, w: int) -> None:
    x = random(1, 3, h, w).float()
    out = blend_windows(lambda x: torch.full_like(x, 0.7), x, tile=8, overlap=3, multiple=1)
    torch.testing.assert_close(out, torch.full_like(x, 0.7), rtol=3e-7, atol=0)


def test_a_picture_of_the_window_is_the_plain_network_bit_for_bit() -> None:
    x = random(2, 3, 8, 8)
    assert torch.equal(blend_windows(network, x, tile=8, overlap=4, multiple=4), network(x))


@each_size
def test_the_whole_picture_at_once_is_the_plain_network(h: int, w: int) -> None:
    x = random(2, 3, h, w)
    torch.testing.assert_close(blend_windows(network, x, tile=0, overlap=0, multiple=1), network(x))
    padded = blend_windows(only(*range(4, 64, 4)), x, tile=0, overlap=0, multiple=4)
    assert torch.equal(padded, x)


@pytest.mark.parametrize("h", [1, 2, 3, 5, 9])
def test_small_pictures_are_continued_by_reflection(h: int) -> None:
    seen = []
    x = torch.arange(float(h)).view(1, 1, h, 1)
    blend_windows(lambda x: seen.append(x) or x, x, tile=12, overlap=2, multiple=4)
    column = list(range(h)) + list(range(h - 2, 0, -1))
    expected = torch.tensor([(column * 12)[:12]]).float()
    assert torch.equal(seen[0], expected.view(1, 1, 12, 1).expand(1, 1, 12, 12))


def test_blending_is_local_and_continuous(monkeypatch: pytest.MonkeyPatch) -> None:
    windows_at_once(monkeypatch, 1)
    # Two windows, of values 0 and 1, meet in one monotone ramp without a step.
    values = iter([0.0, 1.0])
    x = torch.zeros(1, 1, 16, 24)
    out = blend_windows(
        lambda x: torch.full_like(x, next(values)), x, tile=16, overlap=8, multiple=1
    )
    row = out[0, 0, 0]
    assert (out == row).all()
    assert (row[:8] == 0).all()
    assert (row[16:] == 1).all()
    assert (row.diff() >= 0).all()
    assert row.diff().max() < 0.25
    torch.testing.assert_close(row + row.flip(0), torch.ones(24))


def test_blending_is_the_weighted_mean_of_naive_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    windows_at_once(monkeypatch, 1)
    x = random(2, 3, 21, 10)
    out = blend_windows(network, x, tile=8, overlap=3, multiple=1)
    total, weight = torch.zeros(2, 2, 21, 10).double(), torch.zeros(21, 10).double()
    for top in window_starts(21, 8, 3):
        for left in window_starts(10, 8, 3):
            window = (..., slice(top, top + 8), slice(left, left + 8))
            # The weight of this window alone: what becomes of a picture of its ones.
            mark = iter(
                torch.full((2, 1, 8, 8), float((a, b) == (top, left))).double()
                for a in window_starts(21, 8, 3)
                for b in window_starts(10, 8, 3)
            )
            own = blend_windows(lambda _, mark=mark: next(mark), x, tile=8, overlap=3, multiple=1)[
                0, 0
            ]
            assert (own[window[1:]] > 0).all()
            assert own.count_nonzero() == 64
            total[window] += own[window[1:]] * network(x[window])
            weight += own
    torch.testing.assert_close(weight, torch.ones_like(weight))
    torch.testing.assert_close(out, total)


@pytest.mark.parametrize(("h", "w"), [(5, 3), (8, 8), (11, 9)])
@pytest.mark.parametrize("tile", [0, 8])
def test_gradient_passes_the_windows(h: int, w: int, tile: int) -> None:
    x = random(1, 3, h, w).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: blend_windows(network, x, tile=tile, overlap=3, multiple=4), (x,)
    )


def test_windows_beyond_a_limit_are_computed_again_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = 0

    def counted(x: Tensor) -> Tensor:
        nonlocal calls
        calls += len(x)
        return network(x)

    x = random(1, 3, 21, 18).requires_grad_()
    results = []
    windows = num_windows(21, 18, 8, 3)
    windows_at_once(monkeypatch, 128)
    for kept, expected in ((windows, windows), (8, 2 * windows - 8), (4, 2 * windows)):
        monkeypatch.setattr("lavps_cli.models.tiled.KEPT_PIXELS", kept * 64)
        calls = 0
        out = blend_windows(counted, x, tile=8, overlap=3, multiple=4)
        results.append((out, *torch.autograd.grad(out.square().sum(), x)))
        assert calls == expected
        calls = 0
        with torch.no_grad():
            blend_windows(counted, x, tile=8, overlap=3, multiple=4)
        assert calls == windows
    for out, gradient in results[1:]:
        assert torch.equal(out, results[0][0])
        torch.testing.assert_close(gradient, results[0][1])


@pytest.mark.parametrize("batch", [1, 2, 5, 100])
def test_result_does_not_depend_on_the_windows_in_one_call(
    batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def counted(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return ragged(x)

    x = random(2, 3, 21, 10)
    expected = blend_windows(ragged, x, tile=8, overlap=3, multiple=1)
    windows_at_once(monkeypatch, 64 * batch)
    out = blend_windows(counted, x, tile=8, overlap=3, multiple=1)
    torch.testing.assert_close(out, expected)
    told, _ = pixels_in_calls(21, 10, 2, 8, 3, "cpu")
    assert max(sizes) * 64 == told
    assert max(sizes) <= max(batch, 2)
    assert sum(sizes) == 2 * num_windows(21, 10, 8, 3)


def test_images_of_a_batch_do_not_meet() -> None:
    x = random(3, 3, 21, 10)
    together = blend_windows(ragged, x, tile=8, overlap=3, multiple=1)
    for i in range(3):
        alone = blend_windows(ragged, x[i : i + 1], tile=8, overlap=3, multiple=1)
        torch.testing.assert_close(together[i : i + 1], alone)


@each_size
@pytest.mark.parametrize("tile", [0, 8])
def test_num_windows_counts_what_the_network_is_given(h: int, w: int, tile: int) -> None:
    count = 0

    def counted(x: Tensor) -> Tensor:
        nonlocal count
        count += len(x)
        return x

    blend_windows(counted, random(1, 1, h, w), tile=tile, overlap=3, multiple=1)
    assert num_windows(h, w, tile, 3) == count


GAUSSIAN = GaussianPrior(torch.full((3, 1, 1), 0.3).double(), 0.25, Flow())


@each_size
@pytest.mark.parametrize("t", [0.4, [0.2, 1.0]], ids=["shared", "each"])
def test_a_tiled_prior_of_independent_pixels_is_the_prior(
    h: int, w: int, t: float | list[float]
) -> None:
    denoiser = TiledDenoiser(GAUSSIAN, tile=8, overlap=3, multiple=4)
    assert isinstance(denoiser, Denoiser)
    assert denoiser.schedule is GAUSSIAN.schedule
    xt, times = random(2, 3, h, w), torch.tensor(t, dtype=torch.float64)
    torch.testing.assert_close(denoiser(xt, times), GAUSSIAN(xt, times))


@pytest.mark.parametrize(
    ("tile", "overlap", "multiple", "match"),
    [
        (10, 2, 4, "tile is 10"),
        (-8, 2, 4, "tile is -8"),
        (8, 8, 4, "overlap is 8"),
        (8, -1, 4, "-1"),
    ],
)
def test_impossible_windows_are_usage_errors(
    tile: int, overlap: int, multiple: int, match: str
) -> None:
    with pytest.raises(UsageError, match=match):
        blend_windows(network, random(1, 3, 9, 9), tile=tile, overlap=overlap, multiple=multiple)
