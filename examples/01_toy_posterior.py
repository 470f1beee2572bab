"""Sample a posterior that is known exactly, and compare.

A picture of two pixels has a prior with two modes; one pixel is observed with noise. No weights
are needed: the denoiser of a Gaussian mixture has a closed form, and so has the posterior.

    python examples/01_toy_posterior.py
"""

import torch

from lavps_cli import Inpainting, LavpsOptions, Noise, lavps
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.schedule import Flow
from lavps_cli.models.analytic import MixturePrior

COUNT = 2000
SIGMA_Y = 0.3


def main() -> None:
    """Print exact and sampled statistics side by side."""
    means = torch.tensor([[-0.6, -0.6], [0.6, 0.6]]).view(2, 1, 1, 2)
    prior = MixturePrior(means, torch.tensor([0.5, 0.5]), 0.04, Flow())
    A = Inpainting(torch.tensor([1.0, 0.0]).view(1, 1, 2))
    y = torch.tensor([0.1, 0.0]).view(1, 1, 1, 2)
    exact = prior.posterior(Likelihood(y, A, SIGMA_Y))

    options = LavpsOptions(num_steps=50, grad_steps_start=3, grad_steps_end=5)
    likelihood = Likelihood(y.expand(COUNT, 1, 1, 2), A, SIGMA_Y)
    noise = Noise(range(COUNT), torch.device("cpu"))
    x = lavps(prior, likelihood, options, shape=(COUNT, 1, 1, 2), noise=noise)

    upper = (x[:, 0, 0, 1] > 0).double().mean()
    print(f"share of the upper mode   exact {exact.weights[1]:.3f}   sampled {upper:.3f}")
    mode = exact.means[1, 0, 0]
    sampled = x[x[:, 0, 0, 1] > 0].mean(0)[0, 0]
    for i, name in enumerate(("observed", "hidden")):
        print(f"{name:>8} pixel there     exact {mode[i]:.3f}   sampled {sampled[i]:.3f}")


if __name__ == "__main__":
    main()
