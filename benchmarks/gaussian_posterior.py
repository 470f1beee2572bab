"""The zero-shot samplers on one Gaussian prior, whose posterior is known exactly.

    python benchmarks/gaussian_posterior.py [--samples 4000] [--sigma-y 0.3] [--methods ...]

Four pixels, N(0.3, 1) each, the first two seen as 0.8 and -0.5 with noise sigma_y. Told are the
error of the mean of the seen pixels, in deviations of the posterior, and the variance of the seen
and of the unseen ones over the exact one: 0, 1 and 1 for a method without bias.
"""

import argparse

import torch
from gaussian_mixture import CPU
from torch import Tensor

from lavps_cli import catalog
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.schedule import Flow
from lavps_cli.models.analytic import GaussianPrior
from lavps_cli.operators.inpainting import Inpainting

SHAPE = (1, 2, 2)
SEEN = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64).view(SHAPE)
Y = torch.tensor([0.8, -0.5, 0.0, 0.0], dtype=torch.float64).view(1, *SHAPE)
PRIOR = GaussianPrior(torch.full(SHAPE, 0.3, dtype=torch.float64), 1.0, Flow())
MGDM = {"num_steps": 100, "grad_steps_start": 5, "grad_steps_end": 20, "switch_ratio": 0.7}
METHODS: dict[str, tuple[str, dict[str, object]]] = {
    "DPS": ("dps", {"num_steps": 1000, "zeta": 0.3}),
    "DDRM, K = 20": ("ddrm", {}),
    "DDNM+, K = 100": ("ddnm", {}),
    "DDNM+, K = 1000": ("ddnm", {"num_steps": 1000}),
    "PiGDM": ("pigdm", {}),
    "DiffPIR": ("diffpir", {}),
    "DiffPIR, strength 1, zeta 1": ("diffpir", {"strength": 1.0, "zeta": 1.0}),
    "DAPS, exact draws": ("daps", {}),
    "DAPS, Langevin": ("daps", {"langevin_steps": 100}),
    "RED-diff": ("reddiff", {}),
    "MGPS": ("mgps", {}),
    "MGPS, lr 0.1": ("mgps", {"lr": 0.1}),
    "MGDM, G = 5/20": ("lavps", MGDM),
}


def sample(name: str, options: dict[str, object], likelihood: Likelihood, count: int) -> Tensor:
    entry = catalog.sampler(name)
    y = likelihood.y.expand(count, *SHAPE)
    x: Tensor = catalog.resolve(entry.function)(
        PRIOR, Likelihood(y, likelihood.A, likelihood.sigma_y),
        catalog.resolve(entry.options)(**options), shape=(count, *SHAPE),
        noise=Noise(range(count), CPU),
    )  # fmt: skip
    return x.flatten(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--sigma-y", type=float, default=0.3)
    parser.add_argument("--methods", default=";".join(METHODS), help="separated by ;")
    given = parser.parse_args()
    likelihood = Likelihood(Y, Inpainting(SEEN), given.sigma_y)
    exact = PRIOR.posterior(likelihood)
    mean, variance = exact.mean.flatten(), exact.covariance.diag()
    print("| method | mean of seen, off by | variance of seen | of unseen |")
    print("|---|---|---|---|")
    for method in given.methods.split(";"):
        x = sample(*METHODS[method], likelihood, given.samples)
        off = ((x.mean(0) - mean) / variance.sqrt())[:2].abs().mean()
        ratio = x.var(0) / variance
        print(f"| {method} | {off:.2f} | {ratio[:2].mean():.2f} | {ratio[2:].mean():.2f} |",
              flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
