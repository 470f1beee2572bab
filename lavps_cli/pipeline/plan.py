"""What a dry run tells: sizes, work and time, and nothing is done."""

from typing import Any

from lavps_cli import catalog
from lavps_cli.pipeline.coarse import FACTOR, reduced
from lavps_cli.pipeline.model import Weights
from lavps_cli.pipeline.paths import STDIO, Targets
from lavps_cli.pipeline.problem import Observation
from lavps_cli.pipeline.requests import Sampling
from lavps_cli.pipeline.results import Result
from lavps_cli.pipeline.run import Provision
from lavps_cli.pipeline.sampling import expected_evaluations


def plan(
    source: str,
    size: tuple[int, int],
    seen: Observation,
    targets: Targets,
    held: Provision,
    weights: Weights,
    sampling: Sampling,
    options: Any,
    expected: float | None,
) -> Result:
    """Return what would be done with one picture.

    Args:
        source: The input.
        size: Its width and height.
        seen: The problem that it poses.
        targets: Where the results would go.
        held: How much of it is held at once.
        weights: Which networks.
        sampling: What is asked.
        options: The sampler's own.
        expected: Seconds of one sample, if known.
    """
    height, width = seen.visible_size
    warm = weights.inference_folder is not None
    nfe, nbe = expected_evaluations(sampling.method, options, warm=warm)
    problem = seen.likelihood(seen.y)
    any_scale = weights.any_scale and catalog.sampler(sampling.method).trained is None
    if any_scale and sampling.coarse and reduced(problem) is not None:
        nfe, nbe = (round(n * (1 + 1 / FACTOR**2)) for n in (nfe, nbe))
    return Result(
        status="planned",
        input=source,
        output=str(targets.files[0]) if targets.files else STDIO,
        task=seen.degradation.task,
        details={
            "size_in": list(size),
            "size_out": [width, height],
            "samples": sampling.samples,
            "steps": options.num_steps,
            "nfe": nfe,
            "nbe": nbe,
            "device": str(weights.device),
            "dtype": weights.dtype,
            "tile": held.tiling.tile,
            "memory_bytes": held.need.bytes,
            "available_bytes": held.free,
            "seconds": None if expected is None else round(expected * sampling.samples, 1),
        },
    )
