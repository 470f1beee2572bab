"""One call of a sampler, with everything that is counted on the way."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from lavps_cli import catalog
from lavps_cli.catalog import WeightsKind
from lavps_cli.core.denoiser import CountedDenoiser, Denoiser
from lavps_cli.core.gaussian import DiagonalGaussian
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.step import Step
from lavps_cli.core.types import Image
from lavps_cli.core.variational import Context, InferenceModel
from lavps_cli.errors import UsageError
from lavps_cli.models.trained import Trained
from lavps_cli.options import parse_settings
from lavps_cli.pipeline.coarse import FACTOR, guided, reduced
from lavps_cli.pipeline.model import Model
from lavps_cli.pipeline.placed import on_device
from lavps_cli.pipeline.seeds import derive_seed
from lavps_cli.weights.index import beside_of, bundled


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A run after some of its steps: what another one with the same first steps can begin with."""

    step: Step
    noise: Noise
    nfe: float
    nbe: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Draws:
    """Samples, and what they took, per picture."""

    x: Image
    nfe: int
    """Forward evaluations of the prior and the inference model; of a reduced picture by area."""
    nbe: int
    """Backward evaluations of the prior."""
    accepted: list[int]
    """At how many steps each picture kept the predicted start."""
    offered: int
    seconds: float = 0.0
    """Of the whole, the device at rest before and after."""
    snapshots: dict[int, Snapshot] = field(default_factory=dict)


class CountedInference:
    """An inference model that counts its evaluations."""

    def __init__(self, inference: InferenceModel) -> None:
        self.inner = inference
        self.nfe = 0

    def __call__(self, c: Context) -> DiagonalGaussian:
        self.nfe += 1
        return self.inner(c)


@dataclass
class _Safeguard:
    accepted: torch.Tensor | None = None
    offered: int = 0

    def add(self, step: Step) -> None:
        if step.accepted is not None:
            self.offered += 1
            count = step.accepted.long()  # On the device: nothing waits for it.
            self.accepted = count if self.accepted is None else self.accepted + count


def rest(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    elif device.type == "xpu":
        torch.xpu.synchronize(device)


def sampler_options(
    method: str, preset: str, settings: Sequence[str], trained: float | None
) -> Any:
    """Return the options of a sampler: preset, then the weights' own, then `name=value` texts.

    Args:
        method: A name in the catalogue.
        preset: A name in the catalogue.
        settings: Texts, which win.
        trained: r_switch of the inference model, None without one.

    Raises:
        UsageError: A text is wrong, or asks more of the inference model than it learnt.
    """
    entry = catalog.sampler(method)
    cls = catalog.resolve(entry.options)
    chosen = entry.presets[preset]
    values: dict[str, Any] = dict(chosen.cold if trained is None else chosen.warm)
    given = parse_settings(cls, settings)
    if trained is not None and entry.inference == "inference":
        values["switch_ratio"] = max(trained, values.get("switch_ratio", trained))
        if values["switch_ratio"] >= values.get("switch_back", 1.0):
            values["switch_back"] = 1.0  # A model of late times alone serves to the end.
        if given.get("switch_ratio", trained) < trained:
            raise UsageError(
                f"-O switch_ratio={given['switch_ratio']}: the inference model was trained for "
                f"{trained} and above.",
                f"Use:  -O switch_ratio={trained}   or --inference none",
            )
    try:
        return cls(**(values | given))
    except UsageError as error:
        hint = error.hint or "Names and defaults:  lavps models list --samplers"
        raise UsageError(f"-O {error.message}", hint) from error


def expected_evaluations(method: str, options: Any, *, warm: bool) -> tuple[int, int]:
    """Return the forward and backward evaluations of one picture if every start is accepted.

    Args:
        method: A name in the catalogue.
        options: The sampler's own.
        warm: Whether there is an inference model.
    """
    counted: tuple[int, int] = catalog.resolve(catalog.sampler(method).evaluations)(options, warm)
    return counted


def _denoiser(model: Model, method: str, likelihood: Likelihood) -> Denoiser:
    """Return the prior, or the network that knows the observation, as the method asks.

    Raises:
        UsageError: The model is of another kind.
    """
    denoiser, wanted = model.denoiser, catalog.sampler(method).trained
    if not isinstance(denoiser, Trained):
        if wanted is None:
            return denoiser
        raise UsageError(
            f"--method {method} needs a network that was trained to see the observation.",
            _where_trained(wanted),
        )
    kind = denoiser.kind
    if kind != wanted:
        raise UsageError(
            f"--method {method} does not sample with a model of kind {kind}.",
            f"Use it with:  --method {kind}",
        )
    return denoiser.given(likelihood)


def _where_trained(kind: WeightsKind) -> str:
    """Return what to do for want of a network of that kind."""
    train = f"lavps train --stage {kind}      Then:  --model runs/{kind}"
    for name, folder in bundled().items():
        if beside_of(folder, kind) is not None:
            return f"Use:  --model {name}      Or train one:  {train}"
    return f"Train one:  {train}"


def draw(
    model: Model,
    likelihood: Likelihood,
    options: Any,
    *,
    method: str,
    shape: tuple[int, ...],
    seeds: Sequence[int],
    coarse: bool = True,
    on_step: Callable[[int, int], None] | None = None,
    begun: Snapshot | None = None,
    keep: Collection[int] = (),
) -> Draws:
    """Return one posterior sample per seed; large holes are filled from coarse to fine.

    Args:
        model: Prior and inference model.
        likelihood: The observation, one for all seeds or one each.
        options: The sampler's own.
        method: A name in the catalogue.
        shape: (c, h, w) of a picture.
        seeds: One per picture.
        coarse: Whether holes may be filled in the reduced picture first.
        on_step: Told steps done and their number.
        begun: Go on from a snapshot of a run whose first steps had the same settings.
        keep: After how many steps a snapshot is taken; before the inference model's first.
    """
    entry = catalog.sampler(method)
    batch = len(seeds)
    rest(model.device)
    start = time.perf_counter() - (0.0 if begun is None else begun.seconds)
    small = reduced(likelihood) if coarse and model.any_scale else None
    nfe = nbe = 0.0
    if small is not None:
        before = draw(
            model,
            small,
            options,
            method=method,
            shape=(shape[0], *small.y.shape[-2:]),
            seeds=[derive_seed(seed, "coarse") for seed in seeds],
        )
        nfe, nbe = before.nfe / FACTOR**2, before.nbe / FACTOR**2
        likelihood = guided(likelihood, before.x)
    y = likelihood.y.expand(batch, *likelihood.y.shape[1:])
    likelihood = replace(likelihood, y=y, A=on_device(likelihood.A, y.device))
    denoiser = CountedDenoiser(_denoiser(model, method, likelihood), batch)
    noise = Noise(seeds, y.device)
    if begun is not None:
        noise, denoiser.nfe, denoiser.nbe = begun.noise.fork(), begun.nfe, begun.nbe
    safeguard = _Safeguard()
    snapshots: dict[int, Snapshot] = {}

    def step(state: Step) -> None:
        safeguard.add(state)
        if state.done in keep:
            rest(model.device)
            spent = time.perf_counter() - start
            snapshots[state.done] = Snapshot(state, noise.fork(), denoiser.nfe, denoiser.nbe, spent)
        if on_step is not None:
            on_step(state.done, state.total)

    extra: dict[str, Any] = {}
    inference = None
    if entry.inference == "latino" and model.plan is not None:
        extra["plan"] = model.plan
    if entry.inference == "inference" and model.inference is not None:
        inference = extra["inference"] = CountedInference(model.inference)
    if begun is not None:
        extra["begun"] = begun.step
    x = catalog.resolve(entry.function)(
        denoiser,
        likelihood,
        options,
        shape=(batch, *shape),
        noise=noise,
        on_step=step,
        **extra,
    )
    rest(model.device)
    return Draws(
        x=x,
        nfe=round(nfe + denoiser.nfe) + (inference.nfe if inference is not None else 0),
        nbe=round(nbe + denoiser.nbe),
        accepted=[0] * batch if safeguard.accepted is None else safeguard.accepted.tolist(),
        offered=safeguard.offered,
        seconds=time.perf_counter() - start,
        snapshots=snapshots,
    )
