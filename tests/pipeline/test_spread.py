"""What several samples say: how many it takes, where intervals end, and what colours tell."""

import io

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from lavps_cli.bench.uncertainty import least_samples
from lavps_cli.errors import UsageError
from lavps_cli.images.colour_map import colour_map, coloured
from lavps_cli.pipeline import spread
from lavps_cli.pipeline.requests import Sampling
from lavps_cli.pipeline.spread import bounds, check_spread, deviation


def draws(n: int, c: int = 3) -> torch.Tensor:
    """Return samples of one picture."""
    return torch.rand(n, c, 12, 10, generator=torch.Generator().manual_seed(n)) * 2 - 1


@pytest.mark.parametrize(("n", "percent"), [(19, 90.0), (9, 80.0), (3, 50.0)])
def test_the_outermost_samples_are_the_widest_interval(n: int, percent: float) -> None:
    samples = draws(n)
    lower, upper = bounds(samples, percent)
    torch.testing.assert_close(lower[0], samples.min(0).values)
    torch.testing.assert_close(upper[0], samples.max(0).values)
    inner = bounds(samples, percent / 2)
    median = samples.median(0).values
    assert (lower <= inner[0]).all()
    assert (inner[0] <= median).all()
    assert (median <= inner[1]).all()
    assert (inner[1] <= upper).all()
    with pytest.raises(UsageError, match="no interval"):
        bounds(samples[1:], percent)


def test_bands_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bounds(draws(9), 70.0)
    monkeypatch.setattr(spread, "_ROWS", 500)
    for a, b in zip(bounds(draws(9), 70.0), whole, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("n", [2, 3, 8, 18, 19, 40, 200])
def test_what_is_refused_tells_what_would_do(n: int) -> None:
    with pytest.raises(UsageError) as caught:
        check_spread(("a.png",), Sampling(samples=n, intervals=99.9))
    least, percent = caught.value.hint.split()[2], caught.value.hint.split()[-1]
    check_spread(("a.png",), Sampling(samples=int(least), intervals=99.9))
    if n > 2:  # Two samples hold a third of what is drawn.
        check_spread(("a.png",), Sampling(samples=n, intervals=float(percent)))
    if float(percent) < 99:
        assert least_samples((float(percent) + 1) / 100) > n


@pytest.mark.parametrize("percent", [0.0, 100.0, -5.0, float("nan")])
def test_no_such_percents(percent: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 100"):
        check_spread(("a.png",), Sampling(samples=30, intervals=percent))


def test_the_deviation_is_that_of_the_samples_and_says_how_well_it_is_known() -> None:
    samples = draws(9)
    found = deviation(samples)
    expected = samples.numpy().var(0, ddof=1).mean(0) ** 0.5
    with PillowImage.open(io.BytesIO(found.png)) as image:
        values = np.asarray(image).astype(float) * found.about["scale"]
    np.testing.assert_allclose(values, expected, atol=1e-4)
    assert found.about["relative_error"] == 0.25
    assert found.about["largest"] == pytest.approx(expected.max(), abs=1e-5)
    with PillowImage.open(io.BytesIO(found.coloured)) as image:
        assert image.mode == "RGB"
        assert image.height > samples.shape[-2]


@pytest.mark.parametrize("n", [2, 9])
def test_samples_that_agree_have_no_deviation(n: int) -> None:
    about = deviation(draws(1).expand(n, -1, -1, -1)).about
    assert (about["mean"], about["largest"]) == (0.0, 0.0)


def test_brighter_is_more() -> None:
    ramp = coloured(torch.linspace(0, 1, 256)[None])
    light = (ramp[0] * torch.tensor([0.30, 0.59, 0.11])[:, None, None]).sum(0)
    assert (light.diff() > 0).all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 900), (40, 30)])
def test_the_map_is_above_its_legend(height: int, width: int) -> None:
    values = torch.rand(height, width, generator=torch.Generator().manual_seed(0))
    x = colour_map(values, 1.0, "values, in tests")
    left = (x.shape[-1] - width) // 2
    shown = x[..., :height, left : left + width]
    assert (shown - coloured(values)).abs().max() <= 1 / 127
    below = x[..., height:, :]
    assert (below == 1).all(1).double().mean() > 0.5  # White, with
    assert (below == -1).all(1).any()  # black letters.
