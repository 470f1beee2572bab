import pytest
import torch

from lavps_cli.bench.uncertainty import calibration_error, coverage
from lavps_cli.errors import UsageError


def draws(n: int, spread: float = 1.0, shift: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return samples and a truth of 20 000 entries, each with a centre of its own."""
    generator = torch.Generator().manual_seed(n)
    centre = torch.randn(20_000, generator=generator)
    samples = centre + shift + spread * torch.randn(n, 20_000, generator=generator)
    return samples, centre + torch.randn(20_000, generator=generator)


@pytest.mark.parametrize("n", [19, 24, 40])
def test_intervals_cover_what_they_promise(n: int) -> None:
    assert coverage(*draws(n)) == pytest.approx(0.9, abs=0.012)
    assert coverage(*draws(n), level=0.5) == pytest.approx(0.5, abs=0.015)


@pytest.mark.parametrize(("spread", "shift"), [(0.5, 0.0), (1.0, 1.5)])
def test_samples_too_narrow_or_off_cover_less(spread: float, shift: float) -> None:
    assert coverage(*draws(19, spread, shift)) < 0.75
    assert calibration_error(*draws(19, spread, shift)) > 0.05


def test_samples_too_wide_cover_more_and_are_not_calibrated() -> None:
    assert coverage(*draws(19, 2.0)) > 0.97
    assert calibration_error(*draws(19, 2.0)) > 0.05


def test_calibrated_samples_have_uniform_ranks() -> None:
    assert calibration_error(*draws(19)) < 0.01
    known = torch.zeros(19, 50)
    assert calibration_error(known, known[0]) > 0.2  # All ranks are in the middle.


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(UsageError, match="18 samples") as caught:
        coverage(*draws(18))
    assert "19" in caught.value.hint
