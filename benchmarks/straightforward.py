"""Algorithm 2 and the network as one would write them first: what `speed.py` measures against.

Each function replaces one of the package's; `as_first_written` puts a choice of them in place. The
results are the same up to rounding.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

from lavps_cli.core.denoiser import Denoiser, ddim
from lavps_cli.core.gaussian import bridge, forward_kernel, standard_normal
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.schedule import time_grid
from lavps_cli.core.types import Image
from lavps_cli.core.variational import InferenceModel, context, objective, refine
from lavps_cli.models import attention, hdit_layers
from lavps_cli.samplers.lavps import LavpsOptions, num_grad_steps, rate, script_t


@torch.no_grad()
def lavps(
    denoiser: Denoiser, likelihood: Likelihood, options: LavpsOptions, *,
    shape: tuple[int, ...], noise: Noise, inference: InferenceModel | None = None,
) -> Image:  # fmt: skip
    """Algorithm 2 line by line, one picture: every evaluation by itself, none used twice."""
    schedule, inside = denoiser.schedule, script_t(options)
    times = time_grid(schedule, options.num_steps, options.grid)
    xt = standard_normal(shape, noise, likelihood.y.dtype)
    x0 = denoiser(xt, times[-1])
    for k in range(options.num_steps - 1, 1, -1):
        s, t = times[k - 1], times[k]
        xt = bridge(schedule, x0, xt, s=t, t=times[k + 1]).sample(noise)
        c, late = context(denoiser, x0, xt, s, t, likelihood), k in inside
        q, w, accepted = c.bridge, None, None
        if late and inference is not None:
            predicted, w = inference(c), noise.normal_like(xt)
            losses = [objective(each, c, denoiser, w) for each in (c.bridge, predicted)]
            accepted = losses[1] <= losses[0]
            q = predicted if bool(accepted) else q
        steps = num_grad_steps(options, late, None if accepted is None else accepted.tolist())
        q = refine(
            q, c, denoiser, noise,
            num_steps=steps, lr=rate(options, accepted), coordinates=options.coordinates,
        )  # fmt: skip
        taken = steps if isinstance(steps, int) else steps[0]
        # The draw at which the safeguard looked serves as x_s, as it does in the package.
        xs = q.at(w) if w is not None and not taken else q.sample(noise)
        x0 = ddim(denoiser, xs, s, options.num_denoise)
        xt = forward_kernel(schedule, xs, s, t).sample(noise)
    return x0


def whole_mask(q: Tensor, k: Tensor, v: Tensor, window: int, joint: object = None) -> Tensor:
    """Neighbourhood attention as attention of all tokens to all, under a mask."""
    b, h, w, n, d = q.shape

    def near(length: int) -> Tensor:
        place = torch.arange(length)
        first = (place - window // 2).clamp(0, max(length - window, 0))[:, None]
        return (place >= first) & (place < first + window)

    seen = (near(h)[:, None, :, None] & near(w)[None, :, None, :]).view(h * w, h * w)
    q, k, v = (x.reshape(b, h * w, n, d).transpose(1, 2) for x in (q, k, v))
    weight = (q @ k.transpose(-1, -2)).masked_fill_(~seen, float("-inf")).softmax(-1)
    return (weight.to(v.dtype) @ v).transpose(1, 2).reshape(b, h, w, n, d)


def gated(self: hdit_layers.LinearGEGLU, x: Tensor) -> Tensor:
    value, gate = F.linear(x, self.weight).chunk(2, -1)
    return value * F.gelu(gate)


def convolved(self: hdit_layers.OverlapIn | hdit_layers.OverlapOut, x: Tensor) -> Tensor:
    return self.proj(x.movedim(-1, -3)).movedim(-3, -1)


PARTS = {
    "mask": ((attention, "neighbourhood_attention", whole_mask),
             (hdit_layers, "neighbourhood_attention", whole_mask)),
    "layout": ((hdit_layers.LinearGEGLU, "forward", gated),
               (hdit_layers.OverlapIn, "forward", convolved),
               (hdit_layers.OverlapOut, "forward", convolved)),
    "passes": ((attention, "is_cheaper", lambda x: False),
               (hdit_layers, "is_cheaper", lambda x: False)),
}  # fmt: skip


@contextmanager
def as_first_written(parts: tuple[str, ...]) -> Iterator[None]:
    """Put the first versions of some parts of the network in place."""
    changes = [change for part in parts for change in PARTS[part]]
    kept = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    try:
        for owner, name, first in changes:
            setattr(owner, name, first)
        yield
    finally:
        for owner, name, ours in reversed(kept):
            setattr(owner, name, ours)
