"""The kernel between two pictures: regularised least squares on the simplex."""

from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from lavps_cli.blind.edges import Plane, gradients

Kernel: TypeAlias = Float[Tensor, "_k _l"]
_STEPS = 60


def kernel_between(x: Plane, y: Plane, size: int, ridge: float) -> Kernel:
    """Return argmin_k |k * grad x - grad y|^2 + ridge |grad x|^2 |k|^2, k >= 0, sum k = 1.

    By accelerated projected gradients (Beck & Teboulle 2009) on the correlations of the pictures.

    Args:
        x: Sharp picture.
        y: Blurred picture.
        size: Side of the support, odd.
        ridge: Relative to the energy of the gradients of `x`.
    """
    shape = (y.shape[0], y.shape[1])
    fx, fy = torch.fft.rfft2(gradients(x)), torch.fft.rfft2(gradients(y))
    own = _window(torch.fft.irfft2(fx.abs().square().sum(0), s=shape), 2 * size - 1)
    cross = _window(torch.fft.irfft2((fx.conj() * fy).sum(0), s=shape), size)
    energy = own[size - 1, size - 1].clamp_min(1e-12)
    own, cross = own / energy, cross / energy
    n = 3 * size
    of_own = torch.fft.rfft2(own, s=(n, n))
    bound = float(of_own.abs().max()) + ridge
    k = z = torch.full_like(cross, size**-2.0)
    t = 1.0
    for _ in range(_STEPS):
        image = torch.fft.irfft2(of_own * torch.fft.rfft2(z, s=(n, n)), s=(n, n))
        slope = image[size - 1 : 2 * size - 1, size - 1 : 2 * size - 1] + ridge * z - cross
        nearer = on_simplex(z - slope / bound)
        t_next = (1 + (1 + 4 * t * t) ** 0.5) / 2
        z, k, t = nearer + (t - 1) / t_next * (nearer - k), nearer, t_next
    return k


def on_simplex(v: Kernel) -> Kernel:
    """Return the nearest weights that are not negative and sum to one (Duchi et al. 2008)."""
    down = v.flatten().sort(descending=True).values
    over = (down.cumsum(0) - 1) / torch.arange(1, len(down) + 1, dtype=v.dtype)
    last = int((down > over).sum()) - 1
    return (v - over[last]).clamp(min=0)


def cleaned(k: Kernel, share: float, least: float) -> Kernel:
    """Return the kernel without small weights and small islands, its centroid in the centre.

    Args:
        k: On the simplex.
        share: Weights below this share of the greatest are dropped.
        least: Islands (8-connected) with less than this weight are dropped.
    """
    from scipy.ndimage import label

    kept = torch.where(k >= share * k.max(), k, 0)
    names, count = label(kept.numpy() > 0, structure=[[1] * 3] * 3)
    islands = torch.from_numpy(names)
    weights = [float(kept[islands == i].sum()) for i in range(1, count + 1)]
    for i, weight in enumerate(weights, 1):
        if weight < min(least * float(kept.sum()), max(weights)):
            kept = torch.where(islands == i, 0, kept)
    return centred(kept / kept.sum())


def centred(k: Kernel) -> Kernel:
    """Return the kernel moved by whole pixels towards its centroid, nothing leaving its support."""
    for axis in (0, 1):
        profile = k.sum(1 - axis)
        at = torch.arange(len(profile), dtype=k.dtype)
        shift = round(len(profile) // 2 - float((profile * at).sum()))
        used = profile.nonzero()
        shift = max(-int(used.min()), min(shift, len(profile) - 1 - int(used.max())))
        k = k.roll(shift, axis)
    return k


def apart_of(a: Kernel, b: Kernel) -> Kernel:
    """Return a - b, b shifted by whole pixels to where it is most similar, on a wider support."""
    found = _correlations(a, b)
    n, best = found.shape, int(found.argmax())
    # The frames go on around their border: the shift is the same in each way to count it.
    moved = pad(b, (0, n[1] - b.shape[1], 0, n[0] - b.shape[0])).roll(divmod(best, n[1]), (0, 1))
    apart = pad(a, (0, n[1] - a.shape[1], 0, n[0] - a.shape[0])) - moved
    shift = (a.shape[0] // 2, a.shape[1] // 2)
    return pad(apart.roll(shift, (0, 1)), (0, 1, 0, 1))


def similarity(a: Kernel, b: Kernel) -> float:
    """Return the greatest normalised cross-correlation over all shifts, 0 to 1."""
    return float(_correlations(a, b).max() / (a.double().norm() * b.double().norm()))


def _correlations(a: Kernel, b: Kernel) -> Plane:
    """Return the cross-correlation of two kernels for every shift, around a frame for both."""
    n = (a.shape[0] + b.shape[0], a.shape[1] + b.shape[1])
    product = torch.fft.rfft2(a.double(), s=n) * torch.fft.rfft2(b.double(), s=n).conj()
    return torch.fft.irfft2(product, s=n)


def _window(x: Plane, side: int) -> Plane:
    """Return the middle of a correlation whose lag 0 is at index 0."""
    at = torch.arange(side) - side // 2
    return x[(at % x.shape[0])[:, None], at % x.shape[1]]
