"""Attention on a grid of tokens: global, neighbourhood and shifted window, in plain PyTorch.

Queries, keys and values have the shape (b, h, w, heads, d). Neighbourhood attention follows
NATTEN's rule: a window that would cross the border is moved inside, never cut. `joint` are keys and
values of a second set of tokens on the same grid; a query attends to both sets together.
"""

from collections.abc import Callable
from functools import cache, lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from lavps_cli.models.neighbourhood import TILE, attention_by_tiles, seen_keys
from lavps_cli.models.written_out import is_cheaper

Heads: TypeAlias = Float[Tensor, " b h w n d"]
Joint: TypeAlias = tuple[Heads, Heads]
AttentionKind: TypeAlias = Literal["global", "neighbourhood", "shifted_window", "none"]


def global_attention(q: Heads, k: Heads, v: Heads, joint: Joint | None = None) -> Heads:
    """Return attention of every token over all tokens."""
    b, h, w, n, d = q.shape
    if joint is not None:
        k, v = (torch.cat(both, 1) for both in zip((k, v), joint, strict=True))
    q, k, v = (x.reshape(b, -1, n, d).transpose(1, 2) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, scale=1.0)
    return out.transpose(1, 2).reshape(b, h, w, n, d)


def _masked_attention(
    q: Float[Tensor, " b n q d"],
    k: Float[Tensor, " b n k d"],
    v: Float[Tensor, " b n k d"],
    mask: Bool[Tensor, " 1 n q k"],
) -> Float[Tensor, " b n q d"]:
    """Return attention where the mask allows it.

    On CPUs by plain products: with the few hundred keys of a window, the fused kernel takes 1.4
    times as long there in bfloat16, forward and backward, and as long in float32.
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
    logits = (q @ k.transpose(-1, -2)).masked_fill_(~mask, float("-inf"))
    return logits.softmax(-1).to(v.dtype) @ v


def _made(mask: Callable[..., Tensor], *args: Any, device: torch.device) -> Tensor:
    """Return a mask, a kept one unless kernels are recorded, which outlive what is kept."""
    if torch.compiler.is_compiling() or (
        device.type == "cuda" and torch.cuda.is_current_stream_capturing()
    ):
        mask = cast(Any, mask).__wrapped__
    return mask(*args, device)


def _axis_mask(length: int, window: int, device: torch.device) -> Bool[Tensor, " tiles q k"]:
    """Return which keys of its region each query of each tile sees.

    By arithmetic on the device alone: a compiler makes it where it is used.
    """
    before, after = _margins(length, window)
    start = torch.arange(0, length, TILE, device=device)
    keys = torch.arange(-before, TILE + after, device=device)
    return seen_keys(start[:, None] + keys, length, window)


@lru_cache(maxsize=32)
def _mask(
    h: int, w: int, window: int, heads: int, device: torch.device
) -> Bool[Tensor, " 1 n q k"]:
    rows, cols = _axis_mask(h, window, device), _axis_mask(w, window, device)
    both = rows[:, None, :, None, :, None] & cols[None, :, None, :, None, :]
    tiles, queries = len(rows) * len(cols), TILE * TILE
    return both.reshape(tiles, 1, queries, -1).expand(-1, heads, -1, -1).flatten(0, 1)[None]


def _margins(length: int, window: int) -> tuple[int, int]:
    """Return how many keys before a tile and after it any query sees, whichever the tile.

    The most are seen before the last tile, if few tokens are left for it.
    """
    around = window // 2
    return max(around, window - ((length - 1) % TILE + 1)), max(around, window - TILE)


def _regions(x: Heads, window: int) -> Float[Tensor, " b tn k d"]:
    """Return the keys or values that each tile of queries can see, tiles times heads on axis 1.

    Beyond the border are zeros, which no query sees. A region is made of whole and cut tiles, so
    that neither a compiler's gradient nor autograd's adds up what overlaps at random.
    """
    b, _, _, n, d = x.shape
    for axis in (1, 3):
        length, (before, after) = x.shape[axis], _margins(x.shape[axis], window)
        tiles, cuts = -(-length // TILE), range(0, before + TILE + after, TILE)
        end = (tiles + len(cuts) - 1) * TILE - length - before
        x = F.pad(x, (0, 0) * (x.ndim - 1 - axis) + (before, end))
        x = x.view(*x.shape[:axis], -1, TILE, *x.shape[axis + 1 :])
        parts = [
            x.narrow(axis, i, tiles).narrow(axis + 1, 0, min(TILE, before + TILE + after - cut))
            for i, cut in enumerate(cuts)
        ]
        x = torch.cat(parts, axis + 1)
    return x.permute(0, 1, 3, 5, 2, 4, 6).reshape(b, x.shape[1] * x.shape[3] * n, -1, d)


# Looked for once, here: a search inside the network would cut its compiled graph in two.
_HAS_NATTEN = find_spec("natten") is not None


@cache
def _fused() -> Callable[..., Any] | None:
    """Return NATTEN's kernel, if its version has it."""
    return cast(Callable[..., Any] | None, getattr(import_module("natten"), "na2d", None))


def neighbourhood_attention(
    q: Heads, k: Heads, v: Heads, window: int, joint: Joint | None = None
) -> Heads:
    """Return attention of every token over the `window` x `window` tokens around it.

    On a CUDA device NATTEN's kernel takes over where it is installed; it has none for CPUs.
    """
    b, h, w, n, d = q.shape
    if h <= window and w <= window:
        return global_attention(q, k, v, joint)
    if is_cheaper(q):
        return attention_by_tiles(window, q, k, v, *(joint or ()))
    fits = _HAS_NATTEN and q.is_cuda and joint is None and min(h, w) >= window
    if fits and (fused := _fused()) is not None:
        return cast(Tensor, fused(q, k, v, kernel_size=(window, window), scale=1.0))
    q = F.pad(q, (0, 0, 0, 0, 0, -w % TILE, 0, -h % TILE))
    ty, tx = q.shape[1] // TILE, q.shape[2] // TILE
    q = q.view(b, ty, TILE, tx, TILE, n, d).permute(0, 1, 3, 5, 2, 4, 6)
    keys, values = _regions(k, window), _regions(v, window)
    mask = _made(_mask, h, w, window, n, device=q.device)
    if joint is not None:
        keys, values = (
            torch.cat([x, _regions(more, window)], 2)
            for x, more in zip((keys, values), joint, strict=True)
        )
        mask = torch.cat([mask, mask], -1)
    q = q.reshape(b, ty * tx * n, TILE * TILE, d)
    out = _masked_attention(q, keys, values, mask)
    out = out.view(b, ty, tx, n, TILE, TILE, d).permute(0, 1, 4, 2, 5, 3, 6)
    return out.reshape(b, ty * TILE, tx * TILE, n, d)[:, :h, :w]


@lru_cache(maxsize=32)
def _window_mask(
    h: int, w: int, window: int, shift: int, device: torch.device
) -> Bool[Tensor, " n k k"]:
    """Return which tokens of a window are neighbours in the picture, not through the roll."""
    side = torch.zeros(h, w, dtype=torch.long, device=device)
    side[:shift] += 1
    side[:, :shift] += 2
    group = _windows(side.view(1, h, w, 1, 1), window).view(-1, window * window)
    return group[:, :, None] == group[:, None, :]


def _windows(x: Tensor, window: int) -> Tensor:
    b, h, w, n, d = x.shape
    x = x.view(b, h // window, window, w // window, window, n, d)
    return x.permute(0, 1, 3, 5, 2, 4, 6).reshape(b, -1, n, window * window, d)


def shifted_window_attention(
    q: Heads, k: Heads, v: Heads, window: int, shift: int, joint: Joint | None = None
) -> Heads:
    """Return attention within windows of the grid after moving it by `shift` tokens.

    The grid is padded to whole windows by tokens that nothing attends to.
    """
    b, height, width, n, d = q.shape
    pad = (0, 0, 0, 0, 0, -width % window, 0, -height % window)
    inside = torch.ones(1, height, width, 1, 1, dtype=torch.bool, device=q.device)
    q, k, v, inside, *more = (
        torch.roll(F.pad(x, pad), (shift, shift), (1, 2)) for x in (q, k, v, inside, *(joint or ()))
    )
    h, w = q.shape[1:3]
    mask = _made(_window_mask, h, w, window, shift, device=q.device)
    if pad[5] or pad[7]:
        # A padded query may see everything: it is cut off, and an empty row is not a number.
        seen = _windows(inside, window).view(-1, 1, window * window)
        mask = (mask & seen) | ~seen.transpose(1, 2)
    mask = mask.repeat_interleave(n, 0)[None]
    q, k, v, *more = (_windows(x, window).flatten(1, 2) for x in (q, k, v, *more))
    if joint is not None:
        k, v, mask = torch.cat([k, more[0]], 2), torch.cat([v, more[1]], 2), mask.repeat(1, 1, 1, 2)
    out = _masked_attention(q, k, v, mask)
    out = out.view(b, h // window, w // window, n, window, window, d)
    out = out.permute(0, 1, 4, 2, 5, 3, 6).reshape(b, h, w, n, d)
    return torch.roll(out, (-shift, -shift), (1, 2))[:, :height, :width]


def axial_positions(
    h: int, w: int, extent: int | None, device: torch.device
) -> Float[Tensor, " h w 2"]:
    """Return token centres; the longer side spans [-1, 1], or `extent` tokens do when given.

    A fixed extent makes the distance between neighbours independent of the picture's size, so
    that a network with local attention sees any picture as it saw those of its training.
    """
    pitch = 2.0 / (max(h, w) if extent is None else extent)
    y = (torch.arange(h, device=device) - (h - 1) / 2) * pitch
    x = (torch.arange(w, device=device) - (w - 1) / 2) * pitch
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), -1)


def rotate(x: Heads, cos: Float[Tensor, " h w n r"], sin: Float[Tensor, " h w n r"]) -> Heads:
    """Return `x` with the first 2 r features of each head rotated by the token's angles."""
    r = cos.shape[-1]
    a, b, rest = x[..., :r], x[..., r : 2 * r], x[..., 2 * r :]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)
