"""`lavps restore`: damaged pictures in, samples of their posterior out."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lavps_cli import catalog
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.types import Image
from lavps_cli.errors import DataError, LavpsError, UsageError
from lavps_cli.images.picture import Metadata, Picture
from lavps_cli.images.reading import load_picture
from lavps_cli.images.writing import with_writable_metadata
from lavps_cli.options import parse_count, parse_pixels, parse_seconds
from lavps_cli.pipeline.calibration import Costs, costs, expected_seconds
from lavps_cli.pipeline.coarse import FACTOR, reduced
from lavps_cli.pipeline.damage import degrade_picture, required_task
from lavps_cli.pipeline.degradation import check_problem
from lavps_cli.pipeline.deliver import Finished, deliver
from lavps_cli.pipeline.model import Tiling, Weights, open_weights, use_threads, warn_of_slow_bf16
from lavps_cli.pipeline.noise_level import estimate_noise
from lavps_cli.pipeline.paths import (
    STDIO,
    Targets,
    check_outputs,
    claim,
    make_folders,
    name_of,
    places_of,
    plan_targets,
)
from lavps_cli.pipeline.problem import Observation, observation
from lavps_cli.pipeline.record import Record, from_text
from lavps_cli.pipeline.requests import Restoration
from lavps_cli.pipeline.results import Failure, Listener, Outcome, Pipes, Progress, Result
from lavps_cli.pipeline.run import residuals, sample_posterior
from lavps_cli.pipeline.sampling import expected_evaluations, sampler_options

TEMPLATE = "{dir}/{stem}.restored.{ext}"
POOR, POOR_LEAST = 3.0, 0.02
"""A residual is poor from so many noise levels on, and from this much in any case."""


def restore_files(request: Restoration, listener: Listener, pipes: Pipes) -> Iterator[Outcome]:
    """Restore pictures one after another; one that fails does not stop the others.

    Raises:
        LavpsError: Nothing can be done at all: flags, weights, device.
    """
    _check(request)
    use_threads(request.compute.threads)
    weights = open_weights(request.compute, request.sampling.method)
    options = sampler_options(
        request.sampling.method,
        request.sampling.preset,
        request.sampling.settings,
        weights.switch_ratio,
    )
    _introduce(request, weights, listener)
    run = _Run(request, listener, pipes, weights, options)
    for index, source in enumerate(request.inputs, 1):
        try:
            yield from run.picture(source, index)
        except LavpsError as error:
            yield Failure(input=source, error=error)


def _check(request: Restoration) -> None:
    sampling, compute = request.sampling, request.compute
    check_problem(request.problem)
    if sampling.simulate:
        required_task(request.problem)
    if sampling.budget is not None:
        parse_seconds("--budget", sampling.budget)
    parse_count("--tile", compute.tile, 0)
    parse_count("--batch-size", compute.batch_size, 1)
    parse_pixels(compute.max_pixels)
    check_outputs(request.inputs, request.output.output, 1 if sampling.mean else sampling.samples)
    if sampling.samples < 2:
        for flag, given in (("--mean", sampling.mean), ("--uncertainty", sampling.uncertainty)):
            if given:
                raise UsageError(f"{flag} needs several samples.", f"Add:  --samples 8 {flag}")
    if sampling.uncertainty is not None:
        if not sampling.uncertainty.lower().endswith(".png"):
            raise UsageError(
                f"--uncertainty {sampling.uncertainty}: it is written as PNG.",
                "For example:  --uncertainty spread.png",
            )
        check_outputs(request.inputs, sampling.uncertainty, 1, option="--uncertainty")


def _introduce(request: Restoration, weights: Weights, listener: Listener) -> None:
    takes = catalog.sampler(request.sampling.method).inference
    if takes and weights.inference_folder is None and request.compute.inference != "none":
        instead = "running as mgdm" if takes == "inference" else "running untrained"
        listener.warn(f"there is no {takes} model for {weights.name}; {instead}.")
    threads = f", {torch.get_num_threads()} threads" if weights.device.type == "cpu" else ""
    listener.note(f"{weights.name} on {weights.device}, {weights.dtype}{threads}")
    warn_of_slow_bf16(weights.autocast, weights.device, listener)


def _check_scene(seen: Observation, name: str, max_pixels: int) -> None:
    height, width = seen.shape
    if height * width > max_pixels:
        raise DataError(
            f"the result of {name} would have {width}x{height} pixels, more than "
            f"--max-pixels {max_pixels}.",
            f"If you want it:  --max-pixels {height * width}",
        )


def _doubts(name: str, seen: Observation, residual: float) -> list[str]:
    """Return a warning where the result, degraded again, is far from what was observed."""
    if residual < max(POOR * seen.sigma_y, POOR_LEAST):
        return []
    suspect = {"deblur": "--kernel", "sr": "--downsample", "inpaint": "--mask"}
    what = suspect.get(seen.degradation.task, "--noise")
    text = (
        f"the result explains {name} poorly: residual {residual * 127.5:.1f}/255 at noise "
        f"{seen.sigma_y * 127.5:.1f}/255. Check {what}, or take more steps with --preset best."
    )
    return [text]


def _cut(name: str, picture: Picture, targets: Targets) -> list[str]:
    """Return a warning where the result has fewer bits than the input."""
    if targets.depth >= picture.depth:
        return []
    return [f"{name} has {picture.depth} bits per channel, the {targets.format} {targets.depth}."]


def _record_of(picture: Picture, name: str) -> tuple[Record | None, list[str]]:
    """Return the record in a picture, or why it is none."""
    if picture.record is None:
        return None, []
    try:
        return from_text(picture.record, picture.size), []
    except DataError as error:
        return None, [f"{name}: {error.message}"]


@dataclass(frozen=True, eq=False)
class _Case:
    """One picture and the problem that it poses."""

    picture: Picture
    seen: Observation
    clean: Image | None
    """What to score against, if it is known."""
    warnings: list[str]


@dataclass(frozen=True, eq=False)
class _Run:
    """One command: its weights, and the names it has used so far."""

    request: Restoration
    listener: Listener
    pipes: Pipes
    weights: Weights
    options: Any
    claimed: dict[Path, str] = field(default_factory=dict)
    costs: dict[str, Costs] = field(default_factory=dict)
    """By task, found when needed."""

    def picture(self, source: str, index: int) -> Iterator[Result]:
        """Restore one picture."""
        request, name = self.request, name_of(source)
        case = self._read(source)
        seen = case.seen
        for warning in case.warnings:
            self.listener.warn(warning)
        targets = self._targets(source, case.picture, seen)
        inputs = places_of(request.inputs)
        if not claim(targets, source, request.output.existing, self.claimed, inputs):
            output = str(targets.files[0])
            self.listener.detail(f"{name}: {output} exists, skipped")
            yield Result(status="skipped", input=source, output=output, task=seen.degradation.task)
            return
        tile = parse_count("--tile", request.compute.tile, 0)
        tiling = self.weights.tiling(*seen.shape, tile, request.compute.overlap)
        self.listener.detail(
            f"{name}: {seen.degradation.task}, noise {seen.sigma_y * 127.5:.1f}/255 "
            f"({seen.noise_source}), scene {seen.shape[1]}x{seen.shape[0]}, tile {tiling.tile}"
        )
        options, expected = self._options_for(seen)
        if request.dry_run:
            yield self._plan(source, case.picture, seen, targets, tiling.tile, options, expected)
            return
        make_folders(targets)
        started = time.monotonic()
        posterior = sample_posterior(
            seen,
            self.weights,
            tiling,
            request.sampling,
            options,
            batch=parse_count("--batch-size", request.compute.batch_size, 1),
            on_step=self._watch(name, index, started),
        )
        drawn = posterior.x.mean(0, keepdim=True) if request.sampling.mean else posterior.x
        residual = residuals(seen, drawn)
        doubts = [*_cut(name, case.picture, targets), *_doubts(name, seen, max(residual))]
        for warning in doubts:
            self.listener.warn(warning)
        finished = Finished(
            source=source,
            picture=with_writable_metadata(case.picture, targets.format),
            seen=seen,
            clean=case.clean,
            targets=targets,
            posterior=posterior,
            alpha=self._alpha(case, tiling, options),
            residual=residual,
            seconds=time.monotonic() - started,
            warnings=case.warnings + doubts,
        )
        yield from deliver(finished, request, self.weights, options, self.pipes)

    def _alpha(self, case: _Case, tiling: Tiling, options: Any) -> Float[Tensor, "n 1 h w"] | None:
        """Return the transparency of each result, if it is to be restored like a grey picture."""
        alpha, seen, sampling = case.picture.alpha, case.seen, self.request.sampling
        if alpha is None or self.request.output.alpha != "restore" or sampling.simulate:
            return None
        mask = seen.degradation.mask
        known = None if mask is None else mask.values
        y, sigma_y = alpha * 2 - 1, seen.sigma_y
        if seen.noise_source == "estimated":
            sigma_y = estimate_noise(y, known)
        of_alpha = replace(seen, y=y if known is None else y * known, sigma_y=sigma_y)
        x = seen.seen(sample_posterior(of_alpha, self.weights, tiling, sampling, options).x)
        x = x.mean(1, keepdim=True)
        if known is not None and sampling.keep_known:
            x = torch.where(known.bool(), y, x)
        x = x.mean(0, keepdim=True) if sampling.mean else x
        return ((x + 1) / 2).clamp(0, 1)

    def _options_for(self, seen: Observation) -> tuple[Any, float | None]:
        """Return the options for one picture, and the seconds expected of one sample.

        Raises:
            UsageError: A budget is too small.
        """
        sampling, task = self.request.sampling, seen.degradation.task
        pixels = seen.shape[0] * seen.shape[1]
        if sampling.budget is None:
            if not self.request.dry_run:
                return self.options, None
            return self.options, expected_seconds(
                self.weights, sampling.method, task, self.options, pixels
            )
        if task not in self.costs:
            self.costs[task] = costs(self.weights, sampling.method, task, sampling.settings)
        known = self.costs[task]
        budget = parse_seconds("--budget", sampling.budget) / sampling.samples
        options, expected = known.choose(budget, pixels)
        self.listener.detail(f"{options.num_steps} steps, {expected:.1f} s, by {known.source}")
        return options, expected

    def _watch(self, name: str, index: int, started: float) -> Callable[[int, int], None]:
        """Return what tells the listener about every step."""

        def on_step(done: int, total: int) -> None:
            left = (time.monotonic() - started) * (total - done) / done
            count = len(self.request.inputs)
            self.listener.progress(
                Progress(
                    input=name,
                    index=index,
                    count=count,
                    done=done,
                    total=total,
                    seconds_left=left,
                )
            )

        return on_step

    def _read(self, source: str) -> _Case:
        """Read one picture and what there is to know about it."""
        request, name = self.request, name_of(source)
        max_pixels = parse_pixels(request.compute.max_pixels)
        raw = self.pipes.read() if source == STDIO else Path(source)
        picture = load_picture(
            raw,
            name,
            max_pixels,
            page=request.page,
            may_cut=request.output.bit_depth == "8",
        )
        if request.output.metadata == "strip":
            picture = replace(picture, metadata=Metadata(), stored=None)
        if request.output.alpha == "drop" and request.problem.mask != "alpha":
            picture = replace(picture, alpha=None)
        if request.sampling.simulate:
            made = degrade_picture(picture, name, request.problem, request.sampling.seed)
            seen, clean = made.observation, made.observation.seen(made.clean)
            # Of what was simulated there is no file: the results are in sRGB.
            metadata = picture.metadata
            if picture.stored is not None:
                metadata = replace(metadata, icc=b"")
            picture = replace(
                picture, pixels=clean, alpha=made.alpha, stored=None, metadata=metadata
            )
            case = _Case(picture, seen, clean, list(made.notes))
        else:
            record, warnings = _record_of(picture, name)
            seen = observation(picture, name, request.problem, record)
            if request.problem.mask == "alpha":
                picture = replace(picture, alpha=None)  # What was transparent is filled.
            warnings = [*picture.notes, *warnings, *seen.warnings]
            case = _Case(picture, seen, None, warnings)
        _check_scene(case.seen, name, max_pixels)
        return case

    def _targets(self, source: str, picture: Picture, seen: Observation) -> Targets:
        sampling = self.request.sampling
        return plan_targets(
            source,
            self.request.output,
            picture,
            default=TEMPLATE,
            task=seen.degradation.task,
            seed=sampling.seed,
            count=1 if sampling.mean else sampling.samples,
            uncertainty=sampling.uncertainty,
        )

    def _plan(
        self,
        source: str,
        picture: Picture,
        seen: Observation,
        targets: Targets,
        tile: int,
        options: Any,
        expected: float | None,
    ) -> Result:
        height, width = seen.visible_size
        warm = self.weights.inference_folder is not None
        nfe, nbe = expected_evaluations(self.request.sampling.method, options, warm=warm)
        problem = Likelihood(seen.y, seen.A, seen.sigma_y)
        method = catalog.sampler(self.request.sampling.method)
        any_scale = self.weights.any_scale and method.trained is None
        if any_scale and self.request.sampling.coarse and reduced(problem) is not None:
            nfe, nbe = (round(n * (1 + 1 / FACTOR**2)) for n in (nfe, nbe))
        return Result(
            status="planned",
            input=source,
            output=str(targets.files[0]) if targets.files else STDIO,
            task=seen.degradation.task,
            details={
                "size_in": list(picture.size),
                "size_out": [width, height],
                "samples": self.request.sampling.samples,
                "steps": options.num_steps,
                "nfe": nfe,
                "nbe": nbe,
                "device": str(self.weights.device),
                "dtype": self.weights.dtype,
                "tile": tile,
                "seconds": None
                if expected is None
                else round(expected * self.request.sampling.samples, 1),
            },
        )
