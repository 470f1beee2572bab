from functools import cache
from pathlib import Path

import pytest
import torch

from lavps_cli.blind.estimate import CONFIDENT, Estimate, estimate_kernel, refitted
from lavps_cli.blind.kernel import apart_of, on_simplex, similarity
from lavps_cli.core.types import Image
from lavps_cli.errors import DataError, UsageError
from lavps_cli.images.picture import Picture
from lavps_cli.images.writing import encode_deep
from lavps_cli.operators.blur import Blur
from lavps_cli.operators.kernels import line_kernel
from lavps_cli.pipeline import blind
from lavps_cli.pipeline.kernels import read_kernel
from lavps_cli.pipeline.problem import observation
from lavps_cli.pipeline.requests import Problem

SIZE = 9
TRUTH = line_kernel(7, 30)


@cache
def blocks(side: int = 150) -> Image:
    """Rectangles of constant grey, drawn over one another."""
    generator = torch.Generator().manual_seed(1)
    x = torch.zeros(1, 1, side, side)
    for _ in range(60):
        top, left, h, w = torch.randint(0, side, (4,), generator=generator).tolist()
        grey = torch.rand((), generator=generator) * 1.6 - 0.8
        x[..., top : top + 8 + h // 3, left : left + 8 + w // 3] = grey
    return x


@cache
def blurred(top: int = 0, left: int = 0) -> Image:
    return Blur(TRUTH, "valid")(blocks()[..., top : top + 132, left : left + 132])


@cache
def found(top: int = 0, left: int = 0) -> Estimate:
    return estimate_kernel(blurred(top, left), SIZE, 0.004)


def test_a_known_kernel_is_found() -> None:
    point = torch.ones(1, 1)
    assert similarity(found().kernel, TRUTH) > 0.8 > similarity(point, TRUTH) + 0.3
    assert found().confident


def test_it_is_a_kernel_with_its_centroid_in_the_centre() -> None:
    k = found().kernel
    assert k.shape == (SIZE, SIZE)
    assert k.min() >= 0
    assert float(k.sum()) == pytest.approx(1, abs=1e-6)
    at = torch.arange(SIZE) - SIZE // 2
    assert abs(float((k.sum(0) * at).sum())) <= 0.5
    assert abs(float((k.sum(1) * at).sum())) <= 0.5


def test_content_that_moves_does_not_change_it() -> None:
    assert similarity(found().kernel, found(7, 5).kernel) > 0.85


def test_a_sharp_picture_has_nearly_a_point() -> None:
    sharp = estimate_kernel(blocks()[..., :128, :128], SIZE, 0.004).kernel
    assert float(sharp.max()) > 0.8


def test_the_same_picture_gives_the_same_kernel() -> None:
    again = estimate_kernel(blurred().clone(), SIZE, 0.004)
    assert torch.equal(again.kernel, found().kernel)
    assert again.confidence == found().confidence


def test_noise_lowers_the_confidence() -> None:
    noise = torch.randn(blurred().shape, generator=torch.Generator().manual_seed(0))
    noisy = estimate_kernel(blurred() + 0.5 * noise, SIZE, 0.5)
    assert noisy.confidence < min(CONFIDENT, found().confidence)


def test_a_flat_picture_tells_nothing() -> None:
    flat = estimate_kernel(torch.full((1, 3, 40, 40), 0.3), SIZE, 0.004)
    assert flat.confidence < CONFIDENT
    assert float(flat.kernel.sum()) == 1


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="odd"):
        estimate_kernel(blurred(), 8, 0.01)
    with pytest.raises(DataError, match="too small"):
        estimate_kernel(torch.zeros(1, 1, 12, 90), SIZE, 0.01)


def test_the_projection_is_the_nearest_point_of_the_simplex() -> None:
    v = torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = on_simplex(v)
    assert float(p.sum()) == pytest.approx(1)
    assert p.min() >= 0
    # The nearest point of a convex set: no vertex lies beyond the plane through it across v - p.
    assert float(((v - p) * (0 - p)).sum() + (v - p).max()) <= 1e-9


def test_the_problem_takes_the_estimate_and_doubts_a_flat_picture() -> None:
    problem = Problem(kernel=str(SIZE), blind=True)
    seen = observation(Picture(blurred().expand(1, 3, -1, -1)), "a.png", problem, None)
    assert seen.degradation.kernel is not None
    assert seen.degradation.kernel.about["source"] == "estimated"
    assert not any("doubtful" in warning for warning in seen.warnings)
    flat = observation(Picture(torch.zeros(1, 3, 40, 40)), "flat.png", problem, None)
    assert any("flat.png is doubtful" in warning for warning in flat.warnings)


def test_the_written_kernel_can_be_given_back(tmp_path: Path) -> None:
    file = tmp_path / "a.kernel.png"
    file.write_bytes(encode_deep(found().kernel / found().kernel.max()))
    assert torch.allclose(read_kernel(str(file), 0.9, 0).values, found().kernel, atol=1e-4)


def test_the_kernel_is_found_again_from_the_sharp_picture() -> None:
    # The picture goes on beyond what is seen of it, by half of the support that is searched.
    fitted = refitted(blocks()[..., :134, :134], blurred(1, 1), SIZE)
    assert similarity(fitted, TRUTH) > max(0.95, similarity(found().kernel, TRUTH))


def test_doubt_is_what_the_halves_make_different() -> None:
    assert 0 < found().doubt < 0.1
    here, there = torch.zeros(2, SIZE, SIZE)
    here[3, 1:5], there[6, 4:8] = 0.25, 0.25
    assert float(apart_of(here, there).abs().max()) < 1e-6
    assert float(apart_of(here, here.T).abs().sum()) == pytest.approx(1.5)


def test_one_noise_level_serves_the_kernel_and_the_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    levels = iter((0.03, 0.2))
    real = blind.estimate_kernel

    def watched(y: Image, size: int, sigma_y: float) -> Estimate:
        told.append(sigma_y)
        return real(y, size, sigma_y)

    monkeypatch.setattr("lavps_cli.pipeline.problem.estimate_noise", lambda x, mask: next(levels))
    monkeypatch.setattr(blind, "estimate_kernel", watched)
    problem = Problem(kernel=str(SIZE), blind=True)
    seen = observation(Picture(blurred().expand(1, 3, -1, -1)), "a.png", problem, None)
    assert told == [0.03]
    assert seen.sigma_y == pytest.approx((0.03**2 + seen.degradation.doubt**2) ** 0.5)
    assert next(levels) == 0.2


def test_noise_that_is_assumed_grows_by_the_doubt() -> None:
    problem = Problem(kernel=str(SIZE), blind=True, noise="0.02")
    seen = observation(Picture(blurred().expand(1, 3, -1, -1)), "a.png", problem, None)
    assert seen.sigma_y == pytest.approx((0.02**2 + seen.degradation.doubt**2) ** 0.5)
    assert seen.degradation.doubt > 0
