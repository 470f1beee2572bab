"""Neighbourhood attention by blocks, its gradient written out, for CPUs.

Tiles of 8 x 8 queries meet the region of keys that any of them sees. Along an axis all tiles but
those at the border lie alike towards their region; tiles that lie alike are a run. For each pair
of runs the regions are gathered by one copy, and what a query does not see is masked by adding a
bias of the size of a tile: no mask grows with the picture.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

TILE = 8


@dataclass(frozen=True)
class _Run:
    """Tiles along one axis that lie alike towards their regions."""

    first: int
    count: int
    start: int
    """Where the region of the first one begins; each of the others begins TILE later."""
    seen: tuple[tuple[bool, ...], ...]
    """Which keys of its region a query of the tile sees."""

    @property
    def tiles(self) -> slice:
        return slice(self.first, self.first + self.count)


def region_starts(length: int, window: int) -> tuple[list[int], int]:
    """Return where the key region of each tile of queries starts, and the regions' length."""
    region = min(TILE + 2 * (window // 2), length)
    starts = range(-(window // 2), length - window // 2, TILE)
    return [min(max(start, 0), length - region) for start in starts], region


def seen_keys(key: Tensor, length: int, window: int) -> Tensor:
    """Return which keys each query of each tile sees, (tiles, queries, keys).

    A window that would cross the border is moved inside. Queries beyond the last see what it does.

    Args:
        key: Places of the keys of each tile, (tiles, keys).
        length: Of the axis.
        window: How many keys a query sees.
    """
    query = torch.arange(len(key) * TILE, device=key.device).clamp_max(length - 1)
    first = (query - window // 2).clamp(0, max(length - window, 0)).view(-1, TILE, 1)
    return (key[:, None] >= first) & (key[:, None] < (first + window).clamp_max(length))


@lru_cache(maxsize=128)
def _runs(length: int, window: int) -> tuple[_Run, ...]:
    starts, region = region_starts(length, window)
    seen_by_tile = seen_keys(torch.tensor(starts)[:, None] + torch.arange(region), length, window)
    runs: list[_Run] = []
    for i, (start, seen) in enumerate(zip(starts, seen_by_tile.tolist(), strict=True)):
        rows = tuple(map(tuple, seen))
        last = runs[-1] if runs else None
        if last is not None and last.seen == rows and start == last.start + last.count * TILE:
            runs[-1] = _Run(last.first, last.count + 1, last.start, rows)
        else:
            runs.append(_Run(i, 1, start, rows))
    return tuple(runs)


@lru_cache(maxsize=64)
def _bias(rows: _Run, cols: _Run, dtype: torch.dtype) -> Float[Tensor, " q k"]:
    """Return 0 where a query of a tile sees a key of its region, minus infinity elsewhere."""
    down, across = torch.tensor(rows.seen), torch.tensor(cols.seen)
    both = (down[:, None, :, None] & across[None, :, None, :]).reshape(TILE**2, -1)
    return torch.zeros(both.shape, dtype=dtype).masked_fill_(~both, float("-inf"))


def _windows(x: Tensor, rows: _Run, cols: _Run, window: int, part: int, parts: int) -> Tensor:
    """Return the regions of every `parts`-th tile, a view of (b, ty, tx, n, height, width, d)."""
    (b, h, w, n, d), (along_b, along_h, along_w, *rest) = x.shape, x.stride()
    (_, height), (_, width) = region_starts(h, window), region_starts(w, window)
    down, across = divmod(part, parts)
    counts = (len(range(one, run.count, parts)) for one, run in ((down, rows), (across, cols)))
    step = parts * TILE
    return x.as_strided(
        (b, *counts, n, height, width, d),
        (along_b, step * along_h, step * along_w, rest[0], along_h, along_w, rest[1]),
        x.storage_offset()
        + (rows.start + down * TILE) * along_h
        + (cols.start + across * TILE) * along_w,
    )


def _pairs(h: int, w: int, window: int) -> Iterator[tuple[_Run, _Run]]:
    return ((rows, cols) for rows in _runs(h, window) for cols in _runs(w, window))


def _gathered(x: Tensor, window: int) -> Tensor:
    """Return the region of every tile, (b, tiles n, keys, d)."""
    b, h, w, n, d = x.shape
    (rows, height), (cols, width) = region_starts(h, window), region_starts(w, window)
    out = x.new_empty(b, len(rows), len(cols), n, height, width, d)
    for down, across in _pairs(h, w, window):
        out[:, down.tiles, across.tiles] = _windows(x, down, across, window, 0, 1)
    return out.view(b, -1, height * width, d)


def _scattered(regions: Tensor, shape: torch.Size, window: int) -> Tensor:
    """Return the adjoint of `_gathered`, of that shape: what regions share is added.

    Every other tile's regions, or every third one's if they are larger, do not overlap.
    """
    b, h, w, n, d = shape
    (rows, height), (cols, width) = region_starts(h, window), region_starts(w, window)
    regions = regions.view(b, len(rows), len(cols), n, height, width, d)
    out, parts = regions.new_zeros(shape), -(-max(height, width) // TILE)
    for down, across in _pairs(h, w, window):
        of_pair = regions[:, down.tiles, across.tiles]
        for part in range(parts**2):
            own = of_pair[:, part // parts :: parts, part % parts :: parts]
            if own.numel():
                _windows(out, down, across, window, part, parts).add_(own)
    return out


def _tiles(x: Tensor) -> Tensor:
    """Return the queries of every tile, (b, tiles n, queries, d), with zeros at the end."""
    b, h, w, n, d = x.shape
    x = F.pad(x, (0, 0, 0, 0, 0, -w % TILE, 0, -h % TILE))
    x = x.view(b, -(-h // TILE), TILE, -(-w // TILE), TILE, n, d)
    return x.permute(0, 1, 3, 5, 2, 4, 6).reshape(b, -1, TILE**2, d)


def _untiled(x: Tensor, shape: torch.Size) -> Tensor:
    """Return the inverse of `_tiles`, of that shape."""
    b, h, w, n, d = shape
    x = x.view(b, -(-h // TILE), -(-w // TILE), n, TILE, TILE, d).permute(0, 1, 4, 2, 5, 3, 6)
    return x.reshape(b, -(-h // TILE) * TILE, -(-w // TILE) * TILE, n, d)[:, :h, :w]


def attention_by_tiles(window: int, q: Tensor, *pairs: Tensor) -> Tensor:
    """Return attention of (b, h, w, n, d) over the `window` x `window` tokens around each.

    Keys and values come in pairs, one for each set of tokens on the grid; a query attends to all.
    """
    out: Tensor = _Attention.apply(window, q, *pairs)  # type: ignore[no-untyped-call]
    return out


class _Attention(Function):
    @staticmethod
    def forward(ctx: Any, window: int, q: Tensor, *pairs: Tensor) -> Tensor:
        (b, h, w, n, _), sets = q.shape, len(pairs) // 2
        with torch.autocast("cpu", enabled=False):
            tiles = _tiles(q)
            k, v = (
                torch.cat([_gathered(x, window) for x in of], 2) for of in (pairs[::2], pairs[1::2])
            )
            weight = tiles @ k.transpose(-1, -2)
            by_tile = weight.view(b, -(-h // TILE), -(-w // TILE), n, TILE**2, sets, -1)
            for rows, cols in _pairs(h, w, window):
                by_tile[:, rows.tiles, cols.tiles] += _bias(rows, cols, weight.dtype)[:, None]
            weight = weight.softmax(-1)
            ctx.window, ctx.sets, ctx.shape = window, sets, q.shape
            ctx.save_for_backward(tiles, k, v, weight)
            return _untiled(weight @ v, q.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        tiles, k, v, weight = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):
            g = _tiles(g)
            for_v = weight.transpose(-1, -2) @ g
            # The gradient of a softmax p: p (g - sum of p g).
            slope = (g @ v.transpose(-1, -2)).mul_(weight)
            slope.addcmul_(weight, slope.sum(-1, keepdim=True), value=-1)
            for_q, for_k = slope @ k, slope.transpose(-1, -2) @ tiles
            by_set = zip(*(x.chunk(ctx.sets, 2) for x in (for_k, for_v)), strict=True)
            pairs = [_scattered(x.contiguous(), ctx.shape, ctx.window) for of in by_set for x in of]
            return None, _untiled(for_q, ctx.shape), *pairs
