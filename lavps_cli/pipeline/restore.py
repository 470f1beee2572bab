"""`lavps restore`: damaged pictures in, samples of their posterior out."""

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import interpolate

from lavps_cli import catalog
from lavps_cli.core.types import Image
from lavps_cli.errors import DataError, LavpsError, UsageError
from lavps_cli.images import Picture, encode, encode_deep, load_picture, quantised, write_atomic
from lavps_cli.options import parse_count, parse_pixels
from lavps_cli.pipeline.model import Weights, open_weights, use_threads
from lavps_cli.pipeline.paths import (
    STDIO,
    Targets,
    check_outputs,
    claim,
    make_folders,
    name_of,
    plan_targets,
)
from lavps_cli.pipeline.problem import (
    Degraded,
    Observation,
    about_noise,
    degrade_picture,
    implied_task,
    observation,
)
from lavps_cli.pipeline.record import from_text
from lavps_cli.pipeline.requests import Restoration
from lavps_cli.pipeline.results import Failure, Listener, Outcome, Pipes, Progress, Result
from lavps_cli.pipeline.run import Posterior, sample_posterior
from lavps_cli.pipeline.sampling import sampler_options

TEMPLATE = "{dir}/{stem}.restored.{ext}"


def restore_files(request: Restoration, listener: Listener, pipes: Pipes) -> Iterator[Outcome]:
    """Restore pictures one after another; one that fails does not stop the others.

    Raises:
        LavpsError: Nothing can be done at all: flags, weights, device.
    """
    _check(request)
    use_threads(request.compute.threads)
    method = catalog.sampler(request.sampling.method)
    weights = open_weights(request.compute, takes_inference=method.inference)
    run = _Run(request, listener, pipes, weights)
    for index, source in enumerate(request.inputs, 1):
        try:
            yield from run.picture(source, index)
        except LavpsError as error:
            yield Failure(input=source, error=error)


def _check(request: Restoration) -> None:
    sampling = request.sampling
    implied_task(request.problem)
    files_each = 1 if sampling.mean else sampling.samples
    check_outputs(request.inputs, request.output.output, files_each)
    if sampling.samples < 2:
        for flag, given in (("--mean", sampling.mean), ("--uncertainty", sampling.uncertainty)):
            if given:
                raise UsageError(f"{flag} needs several samples.", f"Add:  --samples 8 {flag}")
    if sampling.uncertainty is not None:
        check_outputs(request.inputs, sampling.uncertainty, 1)
        if sampling.uncertainty == STDIO or Path(sampling.uncertainty).suffix.lower() != ".png":
            raise UsageError(
                f"--uncertainty {sampling.uncertainty}: it is written as PNG.",
                "For example:  --uncertainty spread.png",
            )


class _Run:
    """The state of one command: weights once, names used so far."""

    def __init__(
        self, request: Restoration, listener: Listener, pipes: Pipes, weights: Weights
    ) -> None:
        self.request, self.listener, self.pipes, self.weights = request, listener, pipes, weights
        sampling = request.sampling
        self.options = sampler_options(
            sampling.method, sampling.preset, sampling.settings, weights.switch_ratio
        )
        self.claimed: dict[Path, str] = {}
        takes = catalog.sampler(sampling.method).inference
        if takes and weights.inference_folder is None and request.compute.inference != "none":
            listener.warn(
                f"there is no inference model for {weights.folder.name}; running as mgdm."
            )
        threads = f", {torch.get_num_threads()} threads" if weights.device.type == "cpu" else ""
        listener.note(f"{weights.folder.name} on {weights.device} in {weights.dtype}{threads}")

    def picture(self, source: str, index: int) -> Iterator[Result]:
        request, name = self.request, name_of(source)
        sampling = request.sampling
        raw = self.pipes.read() if source == STDIO else Path(source)
        picture = load_picture(raw, name, parse_pixels(request.compute.max_pixels))
        seen, clean, warnings = self._problem(picture, name)
        for warning in warnings:
            self.listener.warn(warning)
        task = seen.degradation.task
        if request.problem.mask == "alpha" and not sampling.simulate:
            picture = replace(picture, alpha=None)  # What was transparent is filled.
        count = 1 if sampling.mean else sampling.samples
        targets = plan_targets(
            source, request.output, own_format=picture.format, default=TEMPLATE, task=task,
            seed=sampling.seed, count=count, uncertainty=sampling.uncertainty,
        )  # fmt: skip
        if not claim(targets, source, request.output.existing, self.claimed):
            self.listener.detail(f"{targets.files[0]} exists: {name} skipped")
            output = str(targets.files[0])
            yield Result(status="skipped", input=source, output=output, task=task)
            return
        tiling = self.weights.tiling(
            *seen.shape, parse_count("--tile", request.compute.tile, 0), request.compute.overlap
        )
        self.listener.detail(
            f"{name}: {task}, {picture.size[0]}x{picture.size[1]}, noise "
            f"{seen.sigma_y * 127.5:.1f}/255 ({seen.noise_source}), tile {tiling.tile}"
        )
        started = time.monotonic()

        def on_step(done: int, total: int) -> None:
            left = (time.monotonic() - started) * (total - done) / done
            self.listener.progress(
                Progress(
                    input=name, index=index, count=len(request.inputs), done=done, total=total,
                    seconds_left=left,
                )
            )  # fmt: skip

        posterior = sample_posterior(
            seen,
            self.weights,
            tiling,
            method=sampling.method,
            options=self.options,
            seed=sampling.seed,
            samples=sampling.samples,
            batch=parse_count("--batch-size", request.compute.batch_size, 1),
            on_step=on_step,
        )
        seconds = time.monotonic() - started
        yield from self._finish(source, picture, seen, clean, targets, posterior, seconds, warnings)

    def _problem(self, picture: Picture, name: str) -> tuple[Observation, Image | None, list[str]]:
        request, warnings = self.request, []
        if request.sampling.simulate:
            made: Degraded = degrade_picture(picture, name, request.problem, request.sampling.seed)
            seen = made.observation
            return seen, seen.seen(made.clean), list(made.notes)
        record = None
        if picture.record is not None:
            try:
                record = from_text(picture.record, picture.size)
            except DataError as error:
                warnings.append(f"{name}: {error.message}")
        seen = observation(picture, name, request.problem, record)
        return seen, None, warnings + list(seen.warnings)

    def _finish(
        self,
        source: str,
        picture: Picture,
        seen: Observation,
        clean: Image | None,
        targets: Targets,
        posterior: Posterior,
        seconds: float,
        warnings: list[str],
    ) -> Iterator[Result]:
        """Write the files of one picture and report them."""
        sampling, compute = self.request.sampling, self.request.compute
        x = seen.seen(posterior.x).clamp(-1, 1)
        if picture.grey:
            x = x.mean(1, keepdim=True)
        make_folders(targets)
        spread = None
        if targets.uncertainty is not None:
            deviation = x.var(0).mean(0).sqrt()
            top = float(deviation.max()) or 1.0
            write_atomic(targets.uncertainty, encode_deep(deviation / top))
            spread = {"output": str(targets.uncertainty), "scale": top / 65535}
        if sampling.mean:
            x = x.mean(0, keepdim=True)
        mask = seen.degradation.mask
        if mask is not None and sampling.keep_known:
            known = mask.values.bool()
            observed = seen.y if sampling.simulate else picture.pixels
            x = torch.where(known, observed, x)
        x = quantised(x)
        height, width = x.shape[-2:]
        alpha = picture.alpha
        if alpha is not None and alpha.shape[-2:] != (height, width):
            alpha = interpolate(alpha, (height, width), mode="bicubic").clamp(0, 1)
        if targets.compare is not None:
            write_atomic(targets.compare, _comparison(seen, x, picture.grey))
        for i in range(len(x)):
            file = replace(picture, pixels=x[i : i + 1], alpha=alpha)
            content = encode(file, targets.format, self.request.output.quality)
            if targets.files:
                write_atomic(targets.files[i], content)
            else:
                self.pipes.write(content)
            kept = "none" if not picture.metadata else "kept"
            details: dict[str, Any] = {}
            if seen.degradation.kernel is not None:
                details["kernel"] = seen.degradation.kernel.about
                details["boundary"] = seen.degradation.boundary
            if seen.degradation.task == "sr":
                details["scale"] = seen.degradation.scale
                details["downsample"] = seen.degradation.downsample
            details |= {
                "noise": about_noise(seen),
                "size_in": [seen.y.shape[-1], seen.y.shape[-2]],
                "size_out": [width, height],
                "method": sampling.method,
                "model": self.weights.folder.name,
                "model_sha256": self.weights.digest,
                "inference": self.weights.inference_folder.name
                if self.weights.inference_folder is not None
                else None,
                "steps": self.options.num_steps,
                "nfe": posterior.nfe,
                "nbe": posterior.nbe,
                "safeguard": {"accepted": posterior.accepted[i], "offered": posterior.offered},
                "seed": sampling.seed,
                "sample": i,
                "settings": self.settings_digest(),
                "device": str(self.weights.device),
                "dtype": self.weights.dtype,
                "tile": posterior.tile,
                "oom_retries": posterior.oom_retries,
                "seconds": round(seconds / len(x), 3),
                "residual": {"rmse": round(posterior.residual[i], 6),
                             "expected": round(seen.sigma_y, 6)},
                "uncertainty": spread,
                "metadata": kept if targets.format != "tiff" or kept == "none" else "partial",
                "warnings": warnings,
                "metrics": _metrics(x[i : i + 1], clean) if clean is not None else None,
            }  # fmt: skip
            output = str(targets.files[i]) if targets.files else STDIO
            yield Result(input=source, output=output, task=seen.degradation.task, details=details)
        del compute

    def settings_digest(self) -> str:
        """Return a digest of everything that decides the pixels."""
        request = self.request
        settings = {
            "problem": asdict(request.problem),
            "sampling": asdict(request.sampling) | {"uncertainty": None},
            "options": asdict(self.options),
            "tile": [request.compute.tile, request.compute.overlap],
            "dtype": self.weights.dtype,
            "model": self.weights.digest,
            "inference": str(self.weights.inference_folder),
        }
        text = json.dumps(settings, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _comparison(seen: Observation, x: Image, grey: bool) -> bytes:
    """Return a PNG of the input, enlarged to the size of the results, and the results."""
    height, width = x.shape[-2:]
    y = interpolate(seen.y, (height, width), mode="nearest")
    row = torch.cat([y, *x.split(1)], dim=-1)
    return encode(Picture(row[:, :1] if grey else row), "png")


def _metrics(x: Image, clean: Image) -> dict[str, float | None]:
    values: dict[str, float | None] = {}
    for name, reference in catalog.METRICS.items():
        try:
            value = float(catalog.resolve(reference)(x, clean))
            values[name] = round(value, 5) if value < float("inf") else None
        except DataError:  # Too small a picture for this metric.
            values[name] = None
    return values
