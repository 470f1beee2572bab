"""From samples to files: crop, known pixels, alpha, metadata, and the report of each file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from lavps_cli import catalog
from lavps_cli.core.types import Image
from lavps_cli.errors import DataError
from lavps_cli.images.colour import beyond_srgb, in_own_colours
from lavps_cli.images.picture import Picture, quantised
from lavps_cli.images.writing import encode, encode_deep, write_all
from lavps_cli.operators.jpeg import JpegCoefficients
from lavps_cli.pipeline.digest import settings_digest
from lavps_cli.pipeline.model import Weights
from lavps_cli.pipeline.paths import STDIO, Targets
from lavps_cli.pipeline.problem import Observation
from lavps_cli.pipeline.requests import Restoration
from lavps_cli.pipeline.results import Pipes, Result
from lavps_cli.pipeline.run import Posterior
from lavps_cli.pipeline.spread import bounds, deviation
from lavps_cli.storage.places import Place
from lavps_cli.weights.hub import name_of

Alphas: TypeAlias = Sequence[Float[Tensor, "1 1 h w"] | None]


@dataclass(frozen=True, eq=False, kw_only=True)
class Finished:
    """One picture whose posterior is sampled."""

    source: str
    picture: Picture
    seen: Observation
    clean: Image | None
    """What to score against, if it is known."""
    targets: Targets
    posterior: Posterior
    alpha: Float[Tensor, "n 1 h w"] | None
    """Of each result, where it is restored too."""
    residual: list[float]
    """Of each result."""
    seconds: float
    warnings: list[str]


def deliver(
    finished: Finished,
    request: Restoration,
    weights: Weights,
    options: Any,
    pipes: Pipes,
    ready: Callable[[Mapping[Place, Path | bytes]], None] | None = None,
) -> list[Result]:
    """Write the files of one picture, all or none, and report them.

    Args:
        finished: The picture.
        request: What is asked.
        weights: For the report.
        options: For the report.
        pipes: Where to without a file.
        ready: Called when the files are written, before they get their names.

    Raises:
        OutputError: One cannot be written.
    """
    picture, targets = finished.picture, finished.targets
    samples = _visible(finished, request)
    x = samples
    if request.sampling.mean:
        x = _with_known(finished, request, samples.mean(0, keepdim=True))
    x = quantised(x, targets.depth)
    alphas = _alphas(finished, len(x), (x.shape[-2], x.shape[-1]))
    files, spread = _spread(finished, request, samples, alphas)
    results = []
    if targets.kernel is not None and finished.seen.degradation.kernel is not None:
        values = finished.seen.degradation.kernel.values
        files[targets.kernel] = encode_deep(values / values.max())
    if targets.compare is not None:
        files[targets.compare] = _comparison(finished.seen, x)
    shared = _about_input(finished, request, weights)
    for i, row in enumerate(torch.split(x, 1)):
        content = _file(finished, request, row, alphas[i])
        if targets.files:
            files[targets.files[i]] = content
        else:
            pipes.write(content)
        result = Result(
            input=finished.source,
            output=str(targets.files[i]) if targets.files else STDIO,
            task=finished.seen.degradation.task,
            details=shared
            | _about_run(finished, request, weights, options, i)
            | spread
            | {
                "seconds": round(finished.seconds / len(x), 3),
                "residual": {
                    "rmse": round(finished.residual[i], 6),
                    "expected": round(finished.seen.sigma_y, 6),
                },
                "metadata": _fate_of_metadata(picture, request),
                "warnings": finished.warnings,
                "metrics": _metrics(row, finished.clean),
            },
        )
        results.append(result)
    if files:
        write_all(files, ready)
    return results


def _visible(finished: Finished, request: Restoration) -> Image:
    """Return the samples as they are seen: cropped, in grey where the picture is, known pixels."""
    x = finished.seen.seen(finished.posterior.x).clamp(-1, 1)
    if finished.picture.grey:
        x = x.mean(1, keepdim=True)
    return _with_known(finished, request, x)


def _with_known(finished: Finished, request: Restoration, x: Image) -> Image:
    """Return pictures with the pixels of the input where a mask says that it has them."""
    mask = finished.seen.degradation.known
    if mask is None or not request.sampling.keep_known:
        return x
    observed = finished.seen.y if request.sampling.simulate else finished.picture.pixels
    return torch.where(mask.values.bool(), observed, x)


def _spread(
    finished: Finished, request: Restoration, samples: Image, alphas: Alphas
) -> tuple[dict[Place, bytes], dict[str, Any]]:
    """Return the files about what the samples leave open, and what is reported about them."""
    targets, percent = finished.targets, request.sampling.intervals
    files: dict[Place, bytes] = {}
    uncertainty = intervals = None
    if targets.uncertainty is not None and targets.uncertainty_map is not None:
        found = deviation(samples)
        files = {targets.uncertainty: found.png, targets.uncertainty_map: found.coloured}
        names = {"output": str(targets.uncertainty), "map": str(targets.uncertainty_map)}
        uncertainty = names | found.about
    if percent is not None:
        ends = bounds(samples, percent)
        for path, end in zip(targets.bounds, ends, strict=True):
            x = quantised(_with_known(finished, request, end), targets.depth)
            files[path] = _file(finished, request, x, alphas[0])
        lower, upper = map(str, targets.bounds)
        width = round(float((ends[1] - ends[0]).mean()), 6)
        intervals = {"percent": percent, "lower": lower, "upper": upper, "mean_width": width}
    return files, {"uncertainty": uncertainty, "intervals": intervals}


def _file(
    finished: Finished, request: Restoration, x: Image, alpha: Float[Tensor, "1 1 h w"] | None
) -> bytes:
    """Return the file of one result."""
    pixels = _stored(finished, x, request)
    depth = finished.targets.depth
    picture = replace(finished.picture, pixels=pixels, alpha=alpha, depth=depth)
    return encode(picture, finished.targets.format, request.output.quality)


def _stored(finished: Finished, x: Image, request: Restoration) -> Image:
    """Return a result in the colour space of its input."""
    picture = finished.picture
    if picture.stored is None:
        return x
    mask = finished.seen.degradation.known
    beyond = beyond_srgb(picture, (x.shape[-2], x.shape[-1]))
    if mask is not None:
        beyond = beyond * mask.values
    x = in_own_colours(x, picture, finished.targets.depth) + beyond
    if mask is not None and request.sampling.keep_known:
        x = torch.where(mask.values.bool(), picture.stored, x)
    return quantised(x, finished.targets.depth)


def _alphas(finished: Finished, count: int, size: tuple[int, int]) -> Alphas:
    """Return the transparency of each result."""
    alpha = finished.picture.alpha
    if alpha is None:
        return [None] * count
    if finished.alpha is not None:
        return torch.split(finished.alpha, 1)
    if alpha.shape[-2:] != size:
        alpha = interpolate(alpha, size, mode="bicubic").clamp(0, 1)
    return [alpha] * count


def _comparison(seen: Observation, x: Image) -> bytes:
    """Return a PNG of the input, enlarged to the size of the results, and the results."""
    size = (x.shape[-2], x.shape[-1])
    if isinstance(seen.A, JpegCoefficients):
        y = seen.seen(seen.A.pinv(seen.y)).clamp(-1, 1)
    else:
        y = interpolate(seen.y, size, mode="nearest")
    return encode(Picture(torch.cat([y.expand_as(x[:1]), *torch.split(x, 1)], dim=-1)), "png")


def _about_input(finished: Finished, request: Restoration, weights: Weights) -> dict[str, Any]:
    seen, (height, width) = finished.seen, finished.seen.visible_size
    details: dict[str, Any] = {}
    if seen.degradation.kernel is not None:
        details["kernel"] = seen.degradation.kernel.about
        if finished.targets.kernel is not None:
            details["kernel"] = details["kernel"] | {"file": str(finished.targets.kernel)}
        details["boundary"] = seen.degradation.boundary
    if seen.degradation.base == "sr":
        used = seen.degradation.filter
        details["scale"] = seen.degradation.scale
        details["downsample"] = seen.degradation.downsample if used is None else used.about
    if seen.degradation.task == "declip":
        details["gain"] = seen.degradation.gain
    inference = weights.inference_folder
    return details | {
        "noise": seen.about_noise,
        "size_in": list(finished.picture.size),
        "size_out": [width, height],
        "method": request.sampling.method,
        "model": weights.name,
        "model_sha256": weights.digest,
        "inference": name_of(inference) if inference is not None else None,
        "inference_sha256": weights.inference_digest,
    }


def _about_run(
    finished: Finished, request: Restoration, weights: Weights, options: Any, i: int
) -> dict[str, Any]:
    posterior, sampling = finished.posterior, request.sampling
    rows = range(sampling.samples) if sampling.mean else (i,)  # A mean takes all of them.
    return {
        "steps": options.num_steps,
        "nfe": sum(posterior.nfe[row] for row in rows),
        "nbe": sum(posterior.nbe[row] for row in rows),
        "safeguard": {
            "accepted": sum(posterior.accepted[row] for row in rows),
            "offered": posterior.offered * len(rows),
        },
        "seed": sampling.seed,
        "sample": None if sampling.mean else i,
        "settings": settings_digest(request, weights, options),
        "device": str(weights.device),
        "dtype": weights.dtype,
        "tile": posterior.tile,
        "oom_retries": posterior.oom_retries,
        "peak_memory_bytes": posterior.peak_memory,
    }


def _fate_of_metadata(picture: Picture, request: Restoration) -> str:
    if request.output.metadata == "strip":
        return "stripped"
    if not picture.metadata:
        return "none"
    return "partial" if picture.metadata.partial else "kept"


def _metrics(x: Image, clean: Image | None) -> dict[str, float | None] | None:
    if clean is None:
        return None
    values: dict[str, float | None] = {}
    for name in ("psnr", "ssim"):
        try:
            value = float(catalog.resolve(catalog.METRICS[name].function)(x, clean))
            values[name] = round(value, 5) if value < float("inf") else None
        except DataError:  # Too small a picture for this metric.
            values[name] = None
    return values
