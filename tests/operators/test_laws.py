"""What every operator owes: linearity, adjoint, inverses, and independence of the batch."""

from collections.abc import Callable
from dataclasses import dataclass, is_dataclass

import pytest
import torch
from torch import Tensor

from lavps_cli.core.operator import LinearOperator, SpectralOperator
from lavps_cli.core.spectrum import least_squares
from lavps_cli.errors import UsageError
from lavps_cli.operators.bicubic import BicubicDownsampling
from lavps_cli.operators.blur import Blur
from lavps_cli.operators.colorization import Colorization
from lavps_cli.operators.denoising import Denoising
from lavps_cli.operators.filtered import FilteredDownsampling
from lavps_cli.operators.inpainting import GuidedInpainting, Inpainting, pixel_mask, rectangle_mask
from lavps_cli.operators.jpeg import JpegCoefficients
from lavps_cli.operators.kernels import gaussian_kernel, line_kernel, motion_kernel
from lavps_cli.operators.masked import Masked
from lavps_cli.operators.super_resolution import SuperResolution
from lavps_cli.pipeline.placed import on_device

BOUNDARIES = ("circular", "reflect", "replicate", "valid")
ALL = slice(None)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


@dataclass(frozen=True)
class Case:
    name: str
    operator: Callable[[slice | int], LinearOperator]
    """The operator for these pictures of the batch."""
    size: tuple[int, int]
    channels: int = 2

    def x(self, *lead: int, seed: int = 0) -> Tensor:
        return random(*lead, self.channels, *self.size, seed=seed)


def shared(name: str, operator: LinearOperator, size: tuple[int, int], channels: int = 2) -> Case:
    return Case(f"{name}-{size[0]}x{size[1]}", lambda _: operator, size, channels)


MASKS = torch.stack([rectangle_mask(12, 17, generator(i)) for i in range(3)])
HOLE, BLOCKS = torch.ones(1, 13, 18), torch.zeros(1, 3, 4)
HOLE[:, 2:, 3:17], BLOCKS[:, 1:, 1:] = 0, 1
KERNELS = torch.stack([motion_kernel(7, 0.8, generator(i)) for i in range(3)])
OBLONG = random(3, 9, seed=5).abs()
FILTER = Blur(gaussian_kernel(5, 1.2), "reflect")
STEPS = 1 + random(3, 8, 8, seed=6).abs()
ORIENTATIONS = range(1, 9)
SAMPLINGS = ((1, 1), (1, 2), (2, 2))

CASES = [
    shared("denoising", Denoising(), (5, 8)),
    *(shared(f"super-resolution{r}", SuperResolution(r), (12, 24)) for r in (1, 2, 3, 4)),
    *(shared(f"bicubic{r}", BicubicDownsampling(r), (12, 24)) for r in (1, 2, 3, 4)),
    *(shared(f"super-resolution{r}", SuperResolution(r), (2 * r, 3 * r)) for r in (5, 6, 7, 16)),
    *(shared(f"bicubic{r}", BicubicDownsampling(r), (2 * r, 3 * r)) for r in (5, 6, 7, 16)),
    shared("bicubic-one-pixel", BicubicDownsampling(4), (4, 4)),
    shared("inpainting", Inpainting(pixel_mask(9, 14, generator())), (9, 14)),
    shared("inpainting-guided", GuidedInpainting(HOLE, BLOCKS, 4), (13, 18)),
    Case("inpainting-each", lambda i: Inpainting(MASKS[i]), (12, 17)),
    *(shared(f"blur-{b}", Blur(line_kernel(5, 30), b), (16, 16)) for b in BOUNDARIES),
    *(shared(f"blur-{b}", Blur(KERNELS[0], b), (11, 19)) for b in BOUNDARIES),
    *(shared(f"blur-oblong-{b}", Blur(OBLONG / OBLONG.sum(), b), (7, 13)) for b in BOUNDARIES),
    *(shared(f"blur-filling-{b}", Blur(KERNELS[1], b), (7, 7)) for b in BOUNDARIES),
    *(shared(f"blur-point-{b}", Blur(torch.ones(1, 1), b), (4, 1)) for b in BOUNDARIES),
    *(Case(f"blur-each-{b}", lambda i, b=b: Blur(KERNELS[i], b), (13, 10)) for b in BOUNDARIES),
    shared("colorization", Colorization(), (5, 8), 3),
    *(shared(f"filtered{r}", FilteredDownsampling(FILTER, r), (12, 24)) for r in (1, 2, 3, 4)),
    shared("masked-blur", Masked(Blur(KERNELS[0], "valid"), MASKS[0]), (18, 23)),
    Case("masked-each", lambda i: Masked(SuperResolution(2), MASKS[i]), (24, 34)),
    Case("masked-blur-each", lambda i: Masked(Blur(KERNELS[i], "valid"), MASKS[i]), (18, 23)),
    *(shared(f"jpeg{s}", JpegCoefficients(STEPS, s), (16, 32), 3) for s in SAMPLINGS),
    *(shared(f"jpeg-turned{o}", JpegCoefficients(STEPS, (2, 1), o), (16, 16), 3)
      for o in ORIENTATIONS),
    shared("jpeg-grey", JpegCoefficients(STEPS[:1]), (16, 8), 3),
]  # fmt: skip


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def close(a: Tensor, b: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum()


def test_it_is_a_linear_operator(case: Case) -> None:
    assert isinstance(case.operator(ALL), LinearOperator)


def test_it_is_linear(case: Case) -> None:
    A = case.operator(ALL)
    x, z = case.x(3), case.x(3, seed=1)
    close(A(2 * x - 3 * z), 2 * A(x) - 3 * A(z))


def test_the_adjoint_is_adjoint(case: Case) -> None:
    A = case.operator(ALL)
    x = case.x(3)
    y = random(*A(x).shape, seed=1)
    close(dot(A(x), y), dot(x, A.adjoint(y)))


def test_the_adjoint_returns_the_shape_of_the_picture(case: Case) -> None:
    A = case.operator(ALL)
    assert A.adjoint(A(case.x(3))).shape == case.x(3).shape


def test_gradients_pass_through_the_operator(case: Case) -> None:
    A = case.operator(ALL)
    x = case.x(3).requires_grad_()
    (0.5 * A(x).square().sum()).backward()
    close(x.grad, A.adjoint(A(x.detach())))


def test_gradients_pass_through_the_adjoint(case: Case) -> None:
    A = case.operator(ALL)
    x = case.x(3)
    y = A(x).clone().requires_grad_()
    dot(A.adjoint(y), x).backward()
    close(y.grad, A(x))


@pytest.mark.parametrize("lam", [0.02, 3.0])
def test_ridge_minimises_the_penalised_residual(case: Case, lam: float) -> None:
    A = case.operator(ALL)
    y = A(case.x(3))
    x = A.ridge(y, lam)
    iterates = isinstance(A, Masked | FilteredDownsampling)
    exact = not iterates and (not isinstance(A, Blur) or A.boundary == "circular")
    close(A.adjoint(A(x) - y) + lam * x, torch.zeros_like(x), 1e-10 if exact else 1e-5)


@pytest.mark.parametrize("lam", [0.02, 3.0])
def test_gradients_pass_through_ridge(case: Case, lam: float) -> None:
    A = case.operator(ALL)
    x = case.x(3)
    y = A(case.x(3, seed=1)).clone().requires_grad_()
    dot(A.ridge(y, lam), x).backward()
    # The gradient is the adjoint of ridge applied to x, whatever y is.
    other = random(*y.shape, seed=2)
    close(dot(A.ridge(other, lam), x), dot(other, y.grad), 1e-3)


@pytest.mark.parametrize(
    "case", [c for c in CASES if hasattr(c.operator(ALL), "pinv")], ids=lambda case: case.name
)
def test_pinv_is_the_moore_penrose_inverse(case: Case) -> None:
    A = case.operator(ALL)
    x, z = case.x(3), case.x(3, seed=1)
    y = random(*A(x).shape, seed=2)
    u = random(*A(x).shape, seed=3)
    close(A(A.pinv(A(x))), A(x))
    close(A.pinv(A(A.pinv(y))), A.pinv(y))
    close(dot(A(A.pinv(y)), u), dot(y, A(A.pinv(u))))
    close(dot(A.pinv(A(x)), z), dot(x, A.pinv(A(z))))


def test_a_batch_is_its_pictures_one_by_one(case: Case) -> None:
    A = case.operator(ALL)
    x = case.x(3)
    y = A(x)
    singles = [case.operator(i) for i in range(3)]
    close(y, torch.stack([a(xi) for a, xi in zip(singles, x, strict=True)]))
    close(A.adjoint(y), torch.stack([a.adjoint(yi) for a, yi in zip(singles, y, strict=True)]))
    ridges = torch.stack([a.ridge(yi, 0.1) for a, yi in zip(singles, y, strict=True)])
    close(A.ridge(y, 0.1), ridges)


def test_more_leading_axes_follow_those_of_the_parameters(case: Case) -> None:
    A = case.operator(ALL)
    x = case.x(3, 2)
    y = A(x)
    for k in range(2):
        close(y[:, k], A(x[:, k]))
        close(A.adjoint(y)[:, k], A.adjoint(y[:, k]))
        close(A.ridge(y, 0.1)[:, k], A.ridge(y[:, k], 0.1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_type_of_the_picture_is_kept(case: Case, dtype: torch.dtype) -> None:
    A = case.operator(ALL)
    x = case.x(3)
    y = A(x.to(dtype))
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    for result, exact in [
        (y, A(x)),
        (A.adjoint(y), A.adjoint(A(x))),
        (A.ridge(y, 0.1), A.ridge(A(x), 0.1)),
    ]:
        assert result.dtype == dtype
        close(result.double(), exact, tolerance)


def test_a_first_use_in_inference_mode_does_not_hinder_gradients(case: Case) -> None:
    A = case.operator(ALL)
    with torch.inference_mode():
        A.ridge(A(case.x(3)), 0.1)
    x = case.x(3).requires_grad_()
    A.ridge(A(x), 0.1).sum().backward()
    assert x.grad is not None


def test_singular_vectors_are_those_of_the_operator(case: Case) -> None:
    A, x = case.operator(ALL), case.x(3)
    if not isinstance(A, SpectralOperator):
        pytest.skip("it has none in closed form")
    if isinstance(A, Blur) and A.boundary != "circular":
        with pytest.raises(UsageError, match="closed form"):
            A.spectral(torch.ones_like, x)
        return
    torch.testing.assert_close(A.spectral(torch.square, x), A.adjoint(A(x)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(A.spectral(torch.ones_like, x), x)
    twice = A.spectral(torch.cos, A.spectral(torch.exp, x))
    torch.testing.assert_close(twice, A.spectral(lambda s: s.cos() * s.exp(), x))
    flat = least_squares(A, A(x))
    torch.testing.assert_close(A(flat), A(x), atol=2e-3, rtol=1e-5)  # Weak frequencies are left.
    unseen = A.spectral(lambda s: (s == 0).to(s), flat)
    torch.testing.assert_close(unseen, torch.zeros_like(unseen))


def tensors(operator: object) -> list[Tensor]:
    """Return the parameters of an operator and of its parts."""
    if isinstance(operator, Tensor):
        return [operator]
    of_parts = vars(operator).values() if is_dataclass(operator) else ()
    return [each for part in of_parts for each in tensors(part)]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_it_goes_to_the_device_of_the_pictures_as_a_whole(case: Case) -> None:
    operator, elsewhere = case.operator(ALL), torch.device("meta")
    placed = on_device(operator, elsewhere)
    if not isinstance(operator, JpegCoefficients):
        assert all(each.device == elsewhere for each in tensors(placed))
    assert [each.shape for each in tensors(placed)] == [each.shape for each in tensors(operator)]
    x = case.x(3)
    assert torch.equal(on_device(operator, x.device)(x), operator(x))
