"""A map of any picture size out of a map of one size: overlapping windows, blended smoothly."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from lavps_cli.core.denoiser import Denoiser
from lavps_cli.core.schedule import Schedule
from lavps_cli.core.types import Image, Time
from lavps_cli.errors import UsageError

KEPT_PIXELS = 2**17
"""Of so many pixels of windows the network's activations are kept for the gradient, unless that is
less than half of them: of a large picture nothing is."""
CALL_PIXELS = 2**16
"""Of so many pixels windows go through the network together, and one window in any case: what the
network holds of them, at 5 kB a pixel for a gradient, bounds the memory of pictures of any size.
More at once are no faster on a CPU (`benchmarks/RESULTS.md`); other devices take four times as
many."""

_Window: TypeAlias = tuple[Any, Tensor | None]
"""Where it is in a picture, and the weights of its pixels, one everywhere if there are none."""


def window_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Return where windows begin along one axis, evenly spaced from border to border.

    Neighbours share at least `overlap` pixels. An axis not longer than `tile` has one window.
    """
    if length <= tile:
        return [0]
    gaps = math.ceil((length - tile) / (tile - overlap))
    return [round(i * (length - tile) / gaps) for i in range(gaps + 1)]


def num_windows(h: int, w: int, tile: int, overlap: int) -> int:
    """Return how many windows a picture of that size takes; `tile` 0 is the whole at once."""
    _check(tile, overlap, 1)
    if tile == 0:
        return 1
    return len(window_starts(h, tile, overlap)) * len(window_starts(w, tile, overlap))


def pixels_in_calls(h: int, w: int, b: int, tile: int, overlap: int, kind: str) -> tuple[int, int]:
    """Return pixels of b pictures in one call of the network, and those kept for a gradient beside.

    `kind` is the type of the device.
    """
    if tile == 0:
        return b * h * w, 0
    count = num_windows(h, w, tile, overlap)
    at_once, whole = min(_windows_at_once(b, tile, kind), count), b * count * tile**2
    pixels = b * at_once * tile**2
    return pixels, min(_kept_pixels(whole), whole - pixels)


def _windows_at_once(b: int, tile: int, kind: str) -> int:
    return max((1 if kind == "cpu" else 4) * CALL_PIXELS // tile**2 // b, 1)


def _kept_pixels(pixels: int) -> int:
    return min(KEPT_PIXELS, pixels) if pixels <= 2 * KEPT_PIXELS else 0


def blend_windows(
    network: Callable[[Image], Tensor],
    x: Image,
    *,
    tile: int,
    overlap: int,
    multiple: int,
) -> Float[Tensor, " b c2 h w"]:
    """Return `network` applied to `x` window by window, windows faded into one another.

    The fading weights are separable and sum to one at every pixel; a border of the picture does
    not fade. A picture smaller than a window, or whose sides are not multiples of `multiple` when
    taken at once, is continued by reflection at the right and at the bottom, and cut back. Memory
    is bounded: windows are views of the picture and are added to the result one call after the
    other, as many together as CALL_PIXELS hold but one of each picture in any case; for the
    gradient, those beyond KEPT_PIXELS go through the network again. There is a
    gradient by `x` alone, not by what the network has learnt, and no second one.

    Args:
        network: Takes (n, c, h, w) to (n, c2, h, w). It is given windows of all pictures of the
            batch together, pictures varying fastest, so n is a multiple of `len(x)`.
        x: The pictures.
        tile: Side of a window; 0 gives the network the whole picture.
        overlap: Least number of pixels that neighbouring windows share.
        multiple: What the sides of the network's input must be multiples of.
    """
    _check(tile, overlap, multiple)
    b, _, height, width = x.shape
    x = _extend(_extend(x, -2, tile, multiple), -1, tile, multiple)
    h, w = x.shape[-2:]
    if tile == 0 or h == w == tile:
        out = network(x)
    else:
        rows, cols = window_starts(h, tile, overlap), window_starts(w, tile, overlap)
        count = _windows_at_once(b, tile, x.device.type)
        windows = _Windows(network, tile, rows, cols, count)
        needs_gradient = torch.is_grad_enabled() and x.requires_grad
        out = _Blended.apply(x, windows) if needs_gradient else windows.blended(x)  # type: ignore[no-untyped-call]
    return out if (h, w) == (height, width) else out[..., :height, :width]


@dataclass(frozen=True, eq=False)
class _Windows:
    """A network, and the windows that it sees of a picture."""

    network: Callable[[Image], Tensor]
    tile: int
    rows: list[int]
    """Where windows begin, as `cols`."""
    cols: list[int]
    count: int
    """Places whose windows are in one call."""

    def parts(self) -> Iterator[list[_Window]]:
        """Yield the windows of each call: where they are, and the weights of their pixels."""
        down, across = _fade(self.rows, self.tile), _fade(self.cols, self.tile)
        places: list[_Window] = [
            (
                (..., slice(r, r + self.tile), slice(s, s + self.tile)),
                down[i, :, None] * across[j],
            )
            for (i, r), (j, s) in product(enumerate(self.rows), enumerate(self.cols))
        ]
        return (places[i : i + self.count] for i in range(0, len(places), self.count))

    def blended(self, x: Image) -> Tensor:
        """Return the windows of `x` after the network, blended."""
        out: Tensor | None = None
        for part in self.parts():
            out = _added(out, self.network(_cut(x, part)), part, x)
        assert out is not None
        return out


class _Blended(Function):
    """The same with its gradient by x written out.

    Autograd would hold a picture of zeros for every window's gradient, and copy one for every
    window that is added: time that grows with the square of the picture.
    """

    @staticmethod
    def forward(ctx: Any, x: Image, windows: _Windows) -> Tensor:
        ctx.save_for_backward(x)
        ctx.windows, ctx.kept, pixels, kind = windows, [], 0, x.device.type
        most = _kept_pixels(len(x) * len(windows.rows) * len(windows.cols) * windows.tile**2)
        ctx.precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        out: Tensor | None = None
        for part in windows.parts():
            inside = _cut(x, part)
            pixels += inside[:, 0].numel()
            keep = pixels <= most
            with torch.set_grad_enabled(keep):
                raw = windows.network(inside.requires_grad_(keep))
            if keep:
                ctx.kept.append((inside, raw))
            out = _added(out, raw.detach(), part, x)
        assert out is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (x,), windows, kept = ctx.saved_tensors, ctx.windows, iter(ctx.kept)
        kind, precision = x.device.type, ctx.precision
        ctx.kept = []
        out: Tensor | None = None
        for part in windows.parts():
            inside, raw = next(kept, (None, None))
            if inside is None or raw is None:
                inside = _cut(x, part).requires_grad_()
                same = torch.autocast(kind, precision, enabled=precision is not None)
                with torch.enable_grad(), same:
                    raw = windows.network(inside)
            of_raw = torch.cat([g[where] * fade.to(g) for where, fade in part])
            (slope,) = torch.autograd.grad(raw, inside, of_raw.to(raw))
            out = _added(out, slope, [(where, None) for where, _ in part], x)
        assert out is not None
        return out, None


def _cut(x: Image, part: Sequence[_Window]) -> Tensor:
    return torch.cat([x[where] for where, _ in part])


def _added(out: Tensor | None, raw: Tensor, part: Sequence[_Window], x: Image) -> Tensor:
    """Return `out`, nothing at first, after windows of pictures like `x` were added in place."""
    if out is None:
        out = raw.new_zeros(len(x), raw.shape[1], *x.shape[-2:])
    for (where, fade), each in zip(part, torch.split(raw, len(x)), strict=True):
        out[where] += each if fade is None else each * fade.to(each)
    return out


@dataclass(frozen=True, eq=False)
class TiledDenoiser:
    """A prior for pictures of any size out of one for windows of `tile` x `tile` pixels."""

    denoiser: Denoiser
    tile: int
    """Side of a window; 0 gives the denoiser the whole picture."""
    overlap: int
    """Least number of pixels that neighbouring windows share."""
    multiple: int
    """What the sides of the denoiser's input must be multiples of."""

    @property
    def schedule(self) -> Schedule:
        return self.denoiser.schedule

    def __call__(self, xt: Image, t: Time) -> Image:
        def network(windows: Image) -> Image:
            each = t if t.ndim == 0 else t.repeat(len(windows) // len(t))
            return self.denoiser(windows, each)

        return blend_windows(
            network,
            xt,
            tile=self.tile,
            overlap=self.overlap,
            multiple=self.multiple,
        )


def _check(tile: int, overlap: int, multiple: int) -> None:
    if tile < 0 or tile % multiple:
        raise UsageError(
            f"tile is {tile}.",
            f"It must be a multiple of {multiple}, or 0 for the whole picture at once.",
        )
    if tile and not 0 <= overlap < tile:
        raise UsageError(f"overlap is {overlap}; it must be in [0, {tile - 1}] for tile {tile}.")


def _extend(x: Image, dim: int, tile: int, multiple: int) -> Tensor:
    """Return `x` continued by reflection, again and again where it is short; one pixel repeats."""
    length = x.shape[dim]
    target = max(tile, length) if tile else -(-length // multiple) * multiple
    if target == length:
        return x
    place = torch.arange(target, device=x.device) % max(2 * length - 2, 1)
    return x.index_select(dim, torch.minimum(place, 2 * length - 2 - place))


def _fade(starts: list[int], tile: int) -> Float[Tensor, " n tile"]:
    """Return the weight of every pixel of every window; those of one picture pixel sum to one.

    A window rises as a squared sine over what it shares with its neighbour, and never to zero.
    """
    shared = tile - max((b - a for a, b in pairwise(starts)), default=0)
    depth = torch.arange(tile, dtype=torch.float64) + 0.5
    rise = torch.sin(math.pi / 2 * (depth / max(shared, 1)).clamp_max(1)).square()
    weight = torch.ones(len(starts), tile, dtype=torch.float64)
    weight[1:] *= rise
    weight[:-1] *= rise.flip(0)
    place = (torch.tensor(starts)[:, None] + torch.arange(tile)).flatten()
    total = torch.zeros(starts[-1] + tile, dtype=torch.float64).index_add(
        0, place, weight.flatten()
    )
    return weight / total[place].view_as(weight)
