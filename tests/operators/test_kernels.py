import pytest
import torch
from torch import Tensor

from lavps_cli.errors import DataError, UsageError
from lavps_cli.operators.kernels import (
    box_kernel,
    disk_kernel,
    gaussian_kernel,
    line_kernel,
    motion_kernel,
    normalise_kernel,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def centroid(kernel: Tensor) -> tuple[float, float]:
    """Return the rows and columns from the central pixel."""
    h, w = kernel.shape
    rows, columns = torch.arange(h) - h // 2, torch.arange(w) - w // 2
    return (kernel.sum(1) * rows).sum().item(), (kernel.sum(0) * columns).sum().item()


KERNELS = {
    "motion": motion_kernel(21, 0.9, generator()),
    "motion-straight": motion_kernel(35, 0.0, generator(1)),
    "motion-wild": motion_kernel(61, 1.0, generator(2)),
    "motion-point": motion_kernel(1, 0.5, generator()),
    "line": line_kernel(21, 35),
    "line-short": line_kernel(1, 20),
    "line-fraction": line_kernel(6.4, -100),
    "gaussian": gaussian_kernel(15, 2.5),
    "disk": disk_kernel(7),
    "box": box_kernel(5),
}


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())
def test_a_kernel_is_a_centred_distribution_of_light(kernel: Tensor) -> None:
    assert kernel.dtype == torch.float32
    assert kernel.shape[0] == kernel.shape[1]
    assert kernel.shape[0] % 2 == 1
    assert (kernel >= 0).all()
    assert kernel.double().sum().item() == pytest.approx(1, abs=1e-6)
    assert centroid(kernel) == pytest.approx((0, 0), abs=1e-5)


@pytest.mark.parametrize("intensity", [0.0, 0.3, 0.9])
def test_a_seed_fixes_the_motion(intensity: float) -> None:
    first = motion_kernel(21, intensity, generator(7))
    assert torch.equal(first, motion_kernel(21, intensity, generator(7)))
    assert not torch.equal(first, motion_kernel(21, intensity, generator(8)))


@pytest.mark.parametrize(("size", "intensity"), [(21, 0.9), (35, 0.3), (61, 0.5)])
def test_motion_fills_a_good_part_of_the_kernel(size: int, intensity: float) -> None:
    filled = []
    for seed in range(40):
        kernel = motion_kernel(size, intensity, generator(seed))
        rows, columns = (kernel > 0).nonzero().unbind(1)
        filled.append(max(rows.max() - rows.min(), columns.max() - columns.min()).item() / size)
    assert min(filled) > 0.4
    assert sum(filled) / len(filled) > 0.7


def spread_across(kernel: Tensor) -> float:
    """Return the standard deviation across the main direction over the one along it."""
    at = kernel.nonzero().double() - kernel.shape[0] // 2
    weights = kernel[kernel > 0].double()
    across, along = torch.linalg.eigvalsh((weights[:, None] * at).mT @ at)
    return (across / along).sqrt().item()


def test_motion_bends_with_its_intensity() -> None:
    spreads = [
        sum(spread_across(motion_kernel(41, intensity, generator(seed))) for seed in range(30)) / 30
        for intensity in (0.0, 0.3, 0.6, 0.9)
    ]
    assert spreads == sorted(spreads)
    assert spreads[0] < 0.05
    assert spreads[-1] > 0.25


def test_a_horizontal_line_is_uniform() -> None:
    kernel = line_kernel(7, 0)
    assert kernel.shape == (7, 7)
    torch.testing.assert_close(kernel[3], torch.full((7,), 1 / 7))
    torch.testing.assert_close(line_kernel(7, 90), kernel.mT)


def test_degrees_are_counter_clockwise_as_seen() -> None:
    kernel = line_kernel(15, 45)
    assert kernel[0:7, 8:].sum() > 0.4
    assert kernel[0:7, :7].sum() == 0


def test_a_line_has_its_length_in_every_direction() -> None:
    for degrees in range(0, 180, 10):
        kernel = line_kernel(25, degrees)
        at = kernel.nonzero().double() - kernel.shape[0] // 2
        angle = torch.tensor(degrees * torch.pi / 180, dtype=torch.float64)
        along = at @ torch.stack([-angle.sin(), angle.cos()])
        deviation = (kernel[kernel > 0] * along**2).sum().sqrt().item()
        assert deviation == pytest.approx(25 / 12**0.5, rel=0.02)


def test_the_gaussian_has_its_sigma() -> None:
    kernel = gaussian_kernel(31, 2.5)
    rows = torch.arange(31) - 15
    assert (kernel.sum(1) * rows**2).sum().sqrt().item() == pytest.approx(2.5, rel=1e-3)


def test_the_disk_is_flat_inside_and_empty_in_the_corners() -> None:
    kernel = disk_kernel(9)
    torch.testing.assert_close(kernel[4, 4], torch.tensor(4 / (torch.pi * 81)), rtol=2e-3, atol=0)
    assert kernel[3, 3] == kernel[4, 4]
    assert kernel[0, 0] == 0
    torch.testing.assert_close(kernel, kernel.mT)


def test_the_box_is_flat() -> None:
    torch.testing.assert_close(box_kernel(3), torch.full((3, 3), 1 / 9))


@pytest.mark.parametrize(
    "draw",
    [
        lambda size: motion_kernel(size, 0.5, generator()),
        lambda size: gaussian_kernel(size, 1.0),
        disk_kernel,
        box_kernel,
    ],
)
def test_an_even_size_is_refused_with_the_next_odd_one(draw) -> None:
    with pytest.raises(UsageError, match="size 20") as error:
        draw(20)
    assert error.value.hint == "Try size 21."


def test_other_impossible_settings_are_refused() -> None:
    with pytest.raises(UsageError, match=r"intensity 1\.5"):
        motion_kernel(21, 1.5, generator())
    with pytest.raises(UsageError, match=r"sigma 0\.0"):
        gaussian_kernel(5, 0.0)
    with pytest.raises(UsageError, match=r"length 0\.0"):
        line_kernel(0.0, 10)


def test_a_kernel_from_outside_sums_to_one() -> None:
    levels = torch.tensor([[0, 0, 0], [10, 200, 40], [0, 0, 0]], dtype=torch.uint8)
    kernel = normalise_kernel(levels)
    torch.testing.assert_close(kernel[1], torch.tensor([10.0, 200, 40]) / 250)


def test_an_even_kernel_from_outside_keeps_its_centre() -> None:
    kernel = normalise_kernel(torch.ones(4, 3))
    assert kernel.shape == (5, 3)
    assert (kernel[:4] == 1 / 12).all()
    assert (kernel[4] == 0).all()


def test_tiny_negative_weights_are_taken_for_zero() -> None:
    kernel = normalise_kernel(torch.tensor([[-0.001, 1.0, 1.0]]))
    torch.testing.assert_close(kernel, torch.tensor([[0.0, 0.5, 0.5]]))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.ones(3, 3, 3), "shape 3 x 3 x 3, not two axes"),
        (torch.tensor(1.0), "a single number"),
        (torch.ones(0, 3), "shape 0 x 3"),
        (torch.tensor([[1.0, torch.nan]]), "not finite"),
        (torch.tensor([[1.0, torch.inf]]), "not finite"),
        (torch.tensor([[1.0, -0.5]]), "negative weights, down to -0.5"),
        (torch.zeros(3, 3), "zero everywhere"),
    ],
)
def test_what_cannot_be_a_kernel_is_refused_with_a_hint(weights: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        normalise_kernel(weights)
    assert error.value.hint
