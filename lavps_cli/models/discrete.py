"""Denoisers from networks that were trained on the discrete times of DDPM (Ho et al. 2020).

A schedule only scales x_t, so a time of any schedule is a place in the network's own table: the one
with the same noise ratio, between two entries where it falls there.
"""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lavps_cli.core.schedule import Schedule, of_rows, over
from lavps_cli.core.types import Image, Time
from lavps_cli.errors import UsageError

Prediction: TypeAlias = Literal["epsilon", "v_prediction", "sample"]
BetasName: TypeAlias = Literal["linear", "scaled_linear", "squaredcos_cap_v2", "trained"]
_MAX_STEPS = 100_000


@dataclass(frozen=True, kw_only=True)
class Betas:
    """The variances that a network's forward process adds, step by step."""

    kind: BetasName = "linear"
    start: float = 1e-4
    end: float = 0.02
    count: int = 1000
    trained: tuple[float, ...] = ()
    """Where they are given one by one."""

    def __post_init__(self) -> None:
        if not 2 <= self.count <= _MAX_STEPS:
            raise UsageError(f"betas: count is {self.count}; allowed are 2 to {_MAX_STEPS}.")
        if self.kind == "trained" and len(self.trained) != self.count:
            raise UsageError(f"betas: {len(self.trained)} are given, and count is {self.count}.")
        b = self.values()
        if not (bool((b > 0).all()) and bool((b < 1).all())):
            raise UsageError("betas have to lie between 0 and 1.")

    def values(self) -> Float[Tensor, " n"]:
        """Return them in float64."""
        if self.kind == "trained":
            return torch.tensor(self.trained, dtype=torch.float64)
        if self.kind == "linear":
            return torch.linspace(self.start, self.end, self.count, dtype=torch.float64)
        if self.kind == "scaled_linear":
            roots = (self.start**0.5, self.end**0.5)
            return torch.linspace(*roots, self.count, dtype=torch.float64) ** 2
        # The cosine of Nichol and Dhariwal (2021).
        t = torch.arange(self.count + 1, dtype=torch.float64) / self.count
        kept = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
        return (1 - kept[1:] / kept[:-1]).clamp_max(0.999)

    def log_ratios(self) -> Float[Tensor, " n"]:
        """Return log(sigma / alpha) at every step, rising."""
        kept = torch.cumprod(1 - self.values(), 0)
        return 0.5 * torch.log((1 - kept) / kept)


@dataclass(frozen=True, eq=False)
class DiscreteDenoiser:
    """D_{0|t} from a network of DDPM, for any schedule."""

    network: nn.Module
    """Called with pictures of unit variance, fractional steps, and labels if there are any."""
    schedule: Schedule
    log_ratios: Float[Tensor, " n"]
    prediction: Prediction = "epsilon"
    clip: float | None = None
    """Greatest value of x_0, if the network was sampled so."""
    multiple: int = 1
    """Heights and widths must be multiples of this."""
    autocast: torch.dtype | None = None
    label: int | None = None
    """Class that the network is told, None for a network without classes."""

    def __call__(self, xt: Image, t: Time) -> Image:
        a, s = self.schedule.alpha(t).double(), self.schedule.sigma(t).double()
        norm = torch.rsqrt(a**2 + s**2)
        # As far as the table goes: before its first entry and after its last nothing was learnt.
        table = self.log_ratios
        log_ratio = (s / a).log().clamp(table[0], table[-1])
        alpha = torch.rsqrt(1 + (2 * log_ratio).exp())
        sigma = torch.rsqrt(1 + (-2 * log_ratio).exp())
        x = over(norm, xt) * xt
        step = of_rows(self._step(log_ratio), xt)
        told = {}
        if self.label is not None:
            told["class_labels"] = torch.full((len(xt),), self.label, device=xt.device)
        with torch.autocast(xt.device.type, self.autocast, enabled=self.autocast is not None):
            out = self.network(x, step, **told)
        raw = getattr(out, "sample", out)[:, : xt.shape[1]].to(xt.dtype)  # Learnt variances are
        if self.prediction == "sample":  # left out.
            x0 = raw
        elif self.prediction == "epsilon":
            x0 = (x - over(sigma, xt) * raw) / over(alpha, xt)
        else:
            x0 = over(alpha, xt) * x - over(sigma, xt) * raw
        return x0 if self.clip is None else x0.clamp(-self.clip, self.clip)

    def _step(self, log_ratio: Time) -> Time:
        """Return the fractional step of a ratio, linear in its logarithm between steps."""
        table = self.log_ratios
        after = torch.searchsorted(table, log_ratio.cpu()).clamp(1, len(table) - 1)
        low, high = table[after - 1], table[after]
        return after - 1 + (log_ratio.cpu() - low) / (high - low)
