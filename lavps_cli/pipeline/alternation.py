"""`--blind`, second part: the kernel fitted once more, to a sample of the sharp picture."""

from dataclasses import replace

from lavps_cli.blind.estimate import MAX_SIDE, busiest, refitted
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.types import Image, Measurement
from lavps_cli.operators.blur import Blur
from lavps_cli.pipeline.degradation import TOLERANCE
from lavps_cli.pipeline.model import Weights
from lavps_cli.pipeline.problem import Observation
from lavps_cli.pipeline.requests import Sampling
from lavps_cli.pipeline.sampling import draw, sampler_options
from lavps_cli.pipeline.seeds import derive_seed


def alternated(seen: Observation, weights: Weights, sampling: Sampling) -> Observation:
    """Return the problem with the kernel that explains the picture by a sample of its sharp part.

    The first kernel comes from strong edges alone; the sample has the texture that the prior adds.
    One more round gains nothing: a prior explains a blurred picture as well by a sharper kernel.

    Args:
        seen: The problem with the kernel that the picture alone tells.
        weights: Networks and their device.
        sampling: Method and seed; few steps suffice.

    Raises:
        LavpsError: The sampler fails.
    """
    kernel = seen.degradation.kernel
    assert kernel is not None
    size = max(kernel.values.shape)
    y = busiest(seen.y, MAX_SIDE).to(weights.device)
    x = _sharp(y, Blur(kernel.values, "valid", tolerance=TOLERANCE), seen, weights, sampling)
    values = refitted(x.cpu(), y.cpu(), size)
    degradation = replace(seen.degradation, kernel=replace(kernel, values=values))
    return replace(seen, degradation=degradation, A=degradation.operator())


def _sharp(
    y: Image, A: Blur, seen: Observation, weights: Weights, sampling: Sampling
) -> Measurement:
    """Return a sample of the scene behind a part of the picture."""
    y = y.expand(-1, 3, -1, -1)
    shape = A.adjoint(y).shape[1:]
    height, width = shape[-2:]
    options = sampler_options(sampling.method, "fast", (), weights.switch_ratio)
    drawn = draw(
        weights.model(weights.tiling(height, width, None, None)),
        Likelihood(y, A, seen.sigma_y),
        options,
        method=sampling.method,
        shape=(3, height, width),
        seeds=[derive_seed(sampling.seed, "kernel")],
    )
    return drawn.x.clamp(-1, 1)
