import pytest
import torch
from torch.nn.functional import avg_pool2d

from lavps_cli.core.likelihood import Likelihood, observe
from lavps_cli.core.noise import Noise
from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.schedule import SCHEDULES
from lavps_cli.core.types import Image, Time
from lavps_cli.operators.denoising import Denoising
from lavps_cli.operators.inpainting import GuidedInpainting, Inpainting, centre_mask, pixel_mask
from lavps_cli.pipeline.coarse import FACTOR, guided, reduced
from lavps_cli.pipeline.model import Model
from lavps_cli.pipeline.sampling import Draws, draw
from lavps_cli.samplers.lavps import LavpsOptions

SIZE, SIGMA_Y = 128, 0.02
OPTIONS = LavpsOptions(num_steps=12)


class WhitePrior:
    """N(0.3, 0.04) at every pixel of a picture of any size."""

    schedule = SCHEDULES["flow"]

    def __call__(self, xt: Image, t: Time) -> Image:
        alpha, var = self.schedule.alpha(t), self.schedule.sigma(t) ** 2
        gain = (0.04 * alpha / (0.04 * alpha**2 + var)).to(xt)
        return 0.3 + gain * (xt - alpha.to(xt) * 0.3)


def scene(A: LinearOperator) -> Likelihood:
    noise = Noise([7], torch.device("cpu"))
    return observe(A, 0.3 + 0.2 * noise.normal((3, SIZE, SIZE)), SIGMA_Y, noise)


def samples(seeds: list[int], *, any_scale: bool = True, coarse: bool = True) -> Draws:
    return draw(
        Model(WhitePrior(), any_scale=any_scale),
        scene(Inpainting(centre_mask(SIZE, SIZE))),
        OPTIONS,
        method="mgdm",
        shape=(3, SIZE, SIZE),
        seeds=seeds,
        coarse=coarse,
    )


@pytest.mark.parametrize(
    "A",
    [
        Denoising(),
        Inpainting(torch.ones(1, SIZE, SIZE)),
        Inpainting(pixel_mask(SIZE, SIZE, torch.Generator().manual_seed(0), 0.9, 0.92)),
        Inpainting(centre_mask(100, 100)),
    ],
)
def test_problems_without_a_large_hole_are_left_alone(A: LinearOperator) -> None:
    size = A.mask.shape[-1] if isinstance(A, Inpainting) else SIZE
    assert reduced(Likelihood(torch.zeros(1, 3, size, size), A, SIGMA_Y)) is None


def test_the_reduced_problem_observes_the_reduced_picture() -> None:
    """Means of blocks that are known throughout, with the noise of a mean."""
    seen = scene(Inpainting(centre_mask(SIZE, SIZE)))
    small = reduced(seen)
    assert small is not None
    mask = small.A.mask
    assert mask.sum() == 0.75 * (SIZE / FACTOR) ** 2
    torch.testing.assert_close(small.y, avg_pool2d(seen.y, FACTOR) * mask)
    assert small.sigma_y == SIGMA_Y / FACTOR


def test_the_guided_problem_is_met_by_the_two_pictures_that_made_it() -> None:
    A = Inpainting(centre_mask(SIZE, SIZE))
    x = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    problem = guided(Likelihood(A(x), A, SIGMA_Y), avg_pool2d(x, FACTOR))
    assert isinstance(problem.A, GuidedInpainting)
    torch.testing.assert_close(problem.A(x), problem.y)


def test_holes_keep_the_means_of_the_reduced_picture() -> None:
    """A mean of independent pixels deviates by a quarter of what a reduced pixel does."""
    hole = slice(SIZE // 4, 3 * SIZE // 4)

    def spread(coarse: bool) -> float:
        one, other = (samples([s], coarse=coarse).x[..., hole, hole] for s in (3, 4))
        return float((avg_pool2d(one, FACTOR) - avg_pool2d(other, FACTOR)).std())

    assert spread(True) > 1.4 * spread(False)


def test_only_priors_of_any_scale_see_reduced_pictures() -> None:
    plain = samples([3], coarse=False)
    assert torch.equal(samples([3], any_scale=False).x, plain.x)
    guided_too = samples([3])
    assert not torch.equal(guided_too.x, plain.x)
    assert plain.nfe < guided_too.nfe < 1.2 * plain.nfe


def test_a_sample_does_not_depend_on_its_batch() -> None:
    both = samples([3, 5]).x
    torch.testing.assert_close(both[1:], samples([5]).x, atol=1e-5, rtol=0)
