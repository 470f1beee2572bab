from typing import Literal
from weakref import ref

import numpy as np
import pytest
import torch
from torch import Tensor

from lavps_cli.errors import DataError
from lavps_cli.operators import blur
from lavps_cli.operators.blur import Blur
from lavps_cli.operators.kernels import box_kernel, motion_kernel

NUMPY_MODES = {"circular": "wrap", "reflect": "reflect", "replicate": "edge"}
BOUNDARIES = (*NUMPY_MODES, "valid")


def naive_blur(x: Tensor, kernel: Tensor, boundary: str) -> Tensor:
    """The definition: y[i, j] is the sum of k[a, b] x[i - a, j - b] around the centre of k."""
    kh, kw = kernel.shape
    if boundary != "valid":
        pads = ((kh // 2, kh // 2), (kw // 2, kw // 2))
        x = torch.from_numpy(np.pad(x.numpy(), pads, mode=NUMPY_MODES[boundary]))
    y = torch.zeros(x.shape[0] - kh + 1, x.shape[1] - kw + 1, dtype=x.dtype)
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            for a in range(kh):
                for b in range(kw):
                    y[i, j] += kernel[a, b] * x[i + kh - 1 - a, j + kw - 1 - b]
    return y


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("side", [(3, 3), (1, 5), (5, 3)])
def test_it_equals_the_definition(boundary, side: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 7, 6, generator=generator, dtype=torch.float64)
    kernel = torch.rand(side, generator=generator, dtype=torch.float64)
    expected = naive_blur(x[0], kernel, boundary)
    torch.testing.assert_close(Blur(kernel, boundary)(x)[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("boundary", ["circular", "reflect", "replicate"])
def test_a_point_becomes_the_kernel(boundary) -> None:
    kernel = motion_kernel(9, 0.7, torch.Generator().manual_seed(1))
    point = torch.zeros(1, 21, 21)
    point[0, 10, 10] = 1
    y = Blur(kernel, boundary)(point)
    torch.testing.assert_close(y[0, 6:15, 6:15], kernel, rtol=0, atol=1e-6)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_constant_stays_constant(boundary) -> None:
    y = Blur(box_kernel(5), boundary)(torch.full((1, 12, 9), 0.4))
    torch.testing.assert_close(y, torch.full_like(y, 0.4))


def test_valid_loses_the_border() -> None:
    assert Blur(torch.ones(3, 7) / 21, "valid")(torch.zeros(2, 3, 10, 11)).shape == (2, 3, 8, 5)


def test_all_boundaries_agree_in_the_interior() -> None:
    x = torch.rand(1, 20, 20, dtype=torch.float64)
    kernel = motion_kernel(5, 0.5, torch.Generator().manual_seed(0))
    inside = Blur(kernel, "valid")(x)
    for boundary in NUMPY_MODES:
        y = Blur(kernel, boundary)(x)[:, 2:-2, 2:-2]
        torch.testing.assert_close(y, inside)


def test_what_is_kept_of_a_kernel_serves_its_own_size_type_and_axes() -> None:
    kernel = motion_kernel(9, 0.5, torch.Generator().manual_seed(0))
    one, kinds = Blur(kernel, "circular"), (torch.float32, torch.float64)
    shapes = [(1, 3, 20, 24), (1, 3, 24, 20), (3, 20, 24), (2, 2, 1, 40, 20)]
    for _ in range(2):
        for shape in shapes:
            for kind in kinds:
                x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=kind)
                assert torch.equal(one(x), Blur(kernel, "circular")(x))
                assert torch.equal(one(x), one(x))


def test_what_is_kept_of_a_kernel_goes_with_the_operator() -> None:
    operator = Blur(motion_kernel(9, 0.5, torch.Generator().manual_seed(0)), "circular")
    operator(torch.zeros(1, 3, 16, 16))
    kept = ref(blur._transfers[operator][1])
    del operator
    assert kept() is None


def test_gradients_pass_to_the_kernel() -> None:
    x = torch.rand(1, 8, 8, dtype=torch.float64)
    kernel = torch.rand(3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda k: Blur(k, "reflect")(x), kernel)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("lam", [1e-2, 1.0])
def test_ridge_is_accurate_at_the_size_of_a_task(boundary, lam: float) -> None:
    generator = torch.Generator().manual_seed(0)
    A = Blur(motion_kernel(21, 0.9, generator), boundary)
    y = A(torch.rand(1, 64, 64, generator=generator) - 0.5)
    x = A.ridge(y, lam)
    gradient = A.adjoint(A(x) - y) + lam * x
    assert gradient.norm() < 1e-5 * A.adjoint(y).norm()


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_ridge_of_zero_is_zero_beside_a_picture_that_is_not(boundary) -> None:
    y = torch.rand(2, 1, 12, 12)
    y[0] = 0
    x = Blur(box_kernel(3), boundary).ridge(y, 0.1)
    assert (x[0] == 0).all()
    assert x[1].isfinite().all()


def test_ridge_does_not_hide_a_nan() -> None:
    y = torch.rand(1, 12, 12)
    y[0, 3, 4] = torch.nan
    assert Blur(box_kernel(3), "valid").ridge(y, 0.1).isnan().any()


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_kernel_larger_than_the_picture_is_refused(boundary) -> None:
    with pytest.raises(DataError, match="kernel of 9 x 9 exceeds the picture of 8 x 20"):
        Blur(box_kernel(9), boundary)(torch.zeros(1, 20, 8))


def test_an_observation_smaller_than_the_kernel_is_refused_where_it_cannot_be() -> None:
    with pytest.raises(DataError, match="exceeds"):
        Blur(box_kernel(9), "circular").adjoint(torch.zeros(1, 20, 8))
    assert Blur(box_kernel(9), "valid").adjoint(torch.zeros(1, 2, 1)).shape == (1, 10, 9)


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(DataError, match="4 x 3 pixels"):
        Blur(torch.ones(3, 4), "valid")


@pytest.mark.parametrize("boundary", ["valid", "reflect"])
def test_channel_by_channel_it_solves_for_the_same(
    monkeypatch: pytest.MonkeyPatch, boundary: Literal["valid", "reflect"]
) -> None:
    y = torch.randn(2, 3, 12, 14, generator=torch.Generator().manual_seed(0))
    A = Blur(box_kernel(5), boundary)
    together = A.ridge(y, 0.1)
    monkeypatch.setattr("lavps_cli.operators.blur.CHANNELS_TOGETHER", 0)
    assert torch.equal(A.ridge(y, 0.1), together)
