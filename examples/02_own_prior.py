"""A prior of one's own: what `--model FILE.py:function` takes.

The function is called with the device and returns a denoiser: an object with a `schedule` and a
call (x_t, t) -> E[x_0 | x_t], differentiable in x_t. This one knows of pictures only that their
power falls with the square of the frequency: a Gaussian prior, whose denoiser has a closed form.

    lavps restore small.png --scale 2 --model examples/02_own_prior.py:pink
    python examples/02_own_prior.py
"""

from dataclasses import dataclass

import torch

import lavps_cli
from lavps_cli import LavpsOptions
from lavps_cli.core.schedule import Flow, Schedule, over
from lavps_cli.core.types import Image, Time
from lavps_cli.pipeline.model import Model

VARIANCE = 0.25
"""Of the pixels, on the scale from -1 to 1."""


@dataclass(frozen=True)
class PinkPrior:
    """The denoiser of a Gaussian with mean 0 whose power is proportional to 1 / frequency^2."""

    schedule: Schedule

    def __call__(self, xt: Image, t: Time) -> Image:
        h, w = xt.shape[-2:]
        fy = torch.fft.fftfreq(h, device=xt.device)[:, None]
        fx = torch.fft.rfftfreq(w, device=xt.device)
        power = 1 / (fy**2 + fx**2 + 1 / (h * w))
        power = power * (VARIANCE / power.mean())
        alpha, sigma = over(self.schedule.alpha(t), xt), over(self.schedule.sigma(t), xt)
        gain = alpha * power / (alpha**2 * power + sigma**2)
        return torch.fft.irfft2(torch.fft.rfft2(xt) * gain, (h, w)).to(xt.dtype)


def pink(device: torch.device) -> PinkPrior:
    """Return the prior; it has no weights to put on the device."""
    return PinkPrior(Flow())


def main() -> None:
    """Fill in what a mask hides of a smooth picture."""
    ramp = torch.linspace(-0.8, 0.8, 32)
    x = (ramp[:, None] * ramp).expand(1, 3, 32, 32)
    A = lavps_cli.Inpainting(lavps_cli.pixel_mask(32, 32, torch.Generator().manual_seed(0)))
    y = lavps_cli.observe(A, x, 0.02, lavps_cli.Noise([0], torch.device("cpu"))).y
    xhat = lavps_cli.restore(
        y,
        A,
        sigma_y=0.02,
        model=Model(pink(y.device)),
        options=LavpsOptions(num_steps=30),
        samples=8,
    ).mean(0, keepdim=True)
    print(f"four of five pixels hidden: {lavps_cli.psnr(A(x), x).item():.1f} dB")
    print(f"mean of 8 samples:          {lavps_cli.psnr(xhat, x).item():.1f} dB")


if __name__ == "__main__":
    main()
