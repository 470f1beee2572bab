"""HDiT written anew, naively: one function of the state dict in the layout of the originals.

Attention is over all tokens, with a table of who sees whom, built token by token out of the
definitions. Nothing of `lavps_cli` is used.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Level:
    kind: str
    window: int
    depth: int
    width: int
    heads: int
    images: int = 0
    """Feature images of operator-aware layers (InvFusion)."""


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def layers(levels: tuple[Level, ...]) -> Iterator[tuple[str, Level, int]]:
    """Return prefix, level and number of every layer; the way up counts on from the way down."""
    for i, level in enumerate(levels[:-1]):
        for j in range(level.depth):
            yield f"down_levels.{i}.{j}.", level, j
            yield f"up_levels.{i}.{j}.", level, level.depth + j
    for j in range(levels[-1].depth):
        yield f"mid_level.{j}.", levels[-1], j


def random_state(
    levels: tuple[Level, ...], *, patch: int, inputs: int = 3, outputs: int = 3,
    mapping: int = 16, mapping_depth: int = 2, classes: int = 0,
) -> dict[str, Tensor]:  # fmt: skip
    """Return weights of every name, all of which play a part."""
    first = levels[0].width
    shapes: dict[str, tuple[int, ...]] = {
        "patch_in.proj.weight": (first, inputs * patch**2),
        "patch_out.proj.weight": (outputs * patch**2, first),
        "out_norm.scale": (first,),
        "time_emb.weight": (mapping // 2, 1),
        "aug_emb.weight": (mapping // 2, 9),
        "time_in_proj.weight": (mapping, mapping),
        "aug_in_proj.weight": (mapping, mapping),
        "mapping.in_norm.scale": (mapping,),
        "mapping.out_norm.scale": (mapping,),
    }
    if classes:
        shapes["class_emb.weight"] = (classes, mapping)
    for i in range(mapping_depth):
        name = f"mapping.blocks.{i}."
        shapes[name + "norm.scale"] = (mapping,)
        shapes[name + "up_proj.weight"] = (6 * mapping, mapping)
        shapes[name + "down_proj.weight"] = (mapping, 3 * mapping)
    for i, (a, b) in enumerate(pairwise(levels)):
        shapes[f"merges.{i}.proj.weight"] = (b.width, 4 * a.width)
        shapes[f"splits.{i}.proj.weight"] = (4 * a.width, b.width)
        shapes[f"splits.{i}.fac"] = (1,)
    for name, level, _ in layers(levels):
        w = level.width
        shapes[name + "ff.norm.linear.weight"] = (w, mapping)
        shapes[name + "ff.up_proj.weight"] = (6 * w, w)
        shapes[name + "ff.down_proj.weight"] = (w, 3 * w)
        if level.kind == "none":
            continue
        shapes[name + "self_attn.norm.linear.weight"] = (w, mapping)
        shapes[name + "self_attn.qkv_proj.weight"] = (3 * w, w)
        shapes[name + "self_attn.out_proj.weight"] = (w, w)
        shapes[name + "self_attn.scale"] = (level.heads,)
        if level.images:
            shapes[name + "self_attn.jnorm.linear.weight"] = (w, mapping)
            shapes[name + "self_attn.jk_proj.weight"] = (w, 2 * w)
            shapes[name + "self_attn.jv_proj.weight"] = (w, w)
            shapes[name + "feature_degradation.deg_linear.weight"] = (
                level.images,
                level.images + 1,
            )
            shapes[name + "feature_degradation.deg_linear.bias"] = (level.images,)
    state = {}
    for i, (name, shape) in enumerate(shapes.items()):
        w = random(*shape, seed=i)
        state[name] = w * shape[-1] ** -0.5 if len(shape) > 1 else 1 + 0.2 * w
        if name.endswith("self_attn.scale"):
            state[name] = 10 * state[name]
    for name, level, _ in layers(levels):
        if level.kind != "none":
            d = level.width // level.heads
            steps = torch.arange(level.heads * d // 8) / (level.heads * d // 8)
            freqs = (math.pi * 10**steps).view(d // 8, level.heads).T.contiguous()
            state[name + "self_attn.pos_emb.freqs"] = freqs
    return state


def hdit(
    state: dict[str, Tensor], levels: tuple[Level, ...], patch: int, x: Tensor, noise: Tensor,
    *, label: int | None = None, later: Tensor | None = None,
    y: Tensor | None = None, A: Callable[[Tensor], Tensor] | None = None,
    back: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """Return the raw network's output.

    Args:
        state: Of `random_state`.
        levels: Its shape.
        patch: Side of patches.
        x: Pictures, (b, c, h, w).
        noise: c_noise, (b,).
        label: Class.
        later: Noise ratios of s, (b,), embedded like `noise`, by time_in_proj_s.
        y: Observation, for operator-aware layers.
        A: Its operator, on (b, k, c, h, w).
        back: What brings measurements back, likewise.
    """

    def features(weight: Tensor, values: Tensor) -> Tensor:
        angle = 2 * math.pi * values @ weight.T
        return torch.cat([angle.cos(), angle.sin()], -1)

    def glu(prefix: str, z: Tensor) -> Tensor:
        a, b = (z @ state[prefix + "up_proj.weight"].T).chunk(2, -1)
        return a * F.gelu(b) @ state[prefix + "down_proj.weight"].T

    def norm(z: Tensor, scale: Tensor) -> Tensor:
        return z / (z.square().mean(-1, keepdim=True) + 1e-6).sqrt() * scale

    def adaptive(prefix: str, z: Tensor) -> Tensor:
        return norm(z, 1 + (cond @ state[prefix + "linear.weight"].T)[:, None, None])

    cond = features(state["time_emb.weight"], noise[:, None]) @ state["time_in_proj.weight"].T
    aug = features(state["aug_emb.weight"], torch.zeros(len(x), 9))
    cond = cond + aug @ state["aug_in_proj.weight"].T
    if later is not None:
        embedded = features(state["time_emb.weight"], later[:, None])
        cond = cond + embedded @ state["time_in_proj_s.weight"].T
    if label is not None:
        cond = cond + state["class_emb.weight"][label]
    cond = norm(cond, state["mapping.in_norm.scale"])
    i = 0
    while f"mapping.blocks.{i}.norm.scale" in state:
        prefix = f"mapping.blocks.{i}."
        cond = cond + glu(prefix, norm(cond, state[prefix + "norm.scale"]))
        i += 1
    cond = norm(cond, state["mapping.out_norm.scale"])

    numbers = {name: (level, number) for name, level, number in layers(levels)}

    def layer(name: str, z: Tensor, pixels: int) -> Tensor:
        level, number = numbers[name]
        if level.kind != "none":
            shift = level.window // 2 if level.kind == "shifted-window" and number % 2 else 0
            z = z + attention(name, level, shift, z, pixels)
        return z + glu(name + "ff.", adaptive(name + "ff.norm.", z))

    def attention(name: str, level: Level, shift: int, z: Tensor, pixels: int) -> Tensor:
        own = name + "self_attn."
        b, h, w, width = z.shape
        normed = adaptive(own + "norm.", z)
        parts = (normed @ state[own + "qkv_proj.weight"].T).chunk(3, -1)
        q, k, v = (split(part, level) for part in parts)
        q, k = turned(own, q, h, w), turned(own, k, h, w)
        seen = sight(level, shift, h, w)
        if level.images:
            assert A is not None
            assert back is not None
            f = degraded(name, level, z, pixels)
            f = adaptive(own + "jnorm.", f)
            jk = torch.cat([normed, f], -1) @ state[own + "jk_proj.weight"].T
            k = torch.cat([k, turned(own, split(jk, level), h, w)], 2)
            v = torch.cat([v, split(f @ state[own + "jv_proj.weight"].T, level)], 2)
            seen = torch.cat([seen, seen], 1)
        logits = (q @ k.transpose(-1, -2)).masked_fill(~seen, float("-inf"))
        out = (logits.softmax(-1) @ v).transpose(1, 2).reshape(b, h, w, width)
        return out @ state[own + "out_proj.weight"].T

    def split(z: Tensor, level: Level) -> Tensor:
        """(b, h, w, heads * d) -> (b, heads, h * w, d)."""
        return z.flatten(1, 2).unflatten(-1, (level.heads, -1)).transpose(1, 2)

    def turned(own: str, z: Tensor, h: int, w: int) -> Tensor:
        """Unit vectors times the root of the head's scale, turned by the token's place."""
        z = z / (z.square().sum(-1, keepdim=True) + 1e-6).sqrt()
        z = z * state[own + "scale"].sqrt()[:, None, None]
        freqs, longer = state[own + "pos_emb.freqs"], max(h, w)
        rows = (2 * torch.arange(h) + 1 - h) / longer
        cols = (2 * torch.arange(w) + 1 - w) / longer
        place = torch.stack(torch.meshgrid(rows, cols, indexing="ij"), -1).flatten(0, 1)
        angle = (place[:, :, None] * freqs[:, None, None]).flatten(2)  # heads, tokens, 2 * freqs
        n = angle.shape[-1]
        a, b, rest = z[..., :n], z[..., n : 2 * n], z[..., 2 * n :]
        return torch.cat(
            [a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin(), rest], -1
        )

    def degraded(name: str, level: Level, z: Tensor, pixels: int) -> Tensor:
        """InvFusion: tokens as k RGB pictures, through A, mixed with y, and back."""
        assert A is not None
        assert back is not None
        assert y is not None
        b, h, w, width = z.shape
        pictures = torch.zeros(b, level.images, 3, h * pixels, w * pixels)
        cells = z.view(b, h, w, pixels, pixels, level.images, 3)
        for i in range(h * pixels):
            for j in range(w * pixels):
                pictures[..., i, j] = cells[:, i // pixels, j // pixels, i % pixels, j % pixels]
        rows = torch.cat([y[:, None], A(pictures)], 1).movedim(1, -1)
        own = name + "feature_degradation.deg_linear."
        mixed = back(F.gelu(rows @ state[own + "weight"].T + state[own + "bias"]).movedim(-1, 1))
        out = torch.zeros_like(cells)
        for i in range(h * pixels):
            for j in range(w * pixels):
                out[:, i // pixels, j // pixels, i % pixels, j % pixels] = mixed[..., i, j]
        return out.view(b, h, w, width)

    x = merged(x.movedim(1, -1), patch) @ state["patch_in.proj.weight"].T
    skips, outer = [], len(levels) - 1
    for i in range(outer):
        for j in range(levels[i].depth):
            x = layer(f"down_levels.{i}.{j}.", x, patch * 2**i)
        skips.append(x)
        x = merged(x, 2) @ state[f"merges.{i}.proj.weight"].T
    for j in range(levels[-1].depth):
        x = layer(f"mid_level.{j}.", x, patch * 2**outer)
    for i in reversed(range(outer)):
        up = spread(x @ state[f"splits.{i}.proj.weight"].T, 2)
        x = skips[i] + state[f"splits.{i}.fac"] * (up - skips[i])
        for j in range(levels[i].depth):
            x = layer(f"up_levels.{i}.{j}.", x, patch * 2**i)
    out = norm(x, state["out_norm.scale"]) @ state["patch_out.proj.weight"].T
    return spread(out, patch).movedim(-1, 1)


def merged(x: Tensor, p: int) -> Tensor:
    """Blocks of p x p become one, in the order row, column, channel."""
    return torch.cat([x[:, i::p, j::p] for i in range(p) for j in range(p)], -1)


def spread(x: Tensor, p: int) -> Tensor:
    b, h, w, c = x.shape
    out = torch.zeros(b, h * p, w * p, c // p**2)
    for number, part in enumerate(x.chunk(p**2, -1)):
        out[:, number // p :: p, number % p :: p] = part
    return out


def sight(level: Level, shift: int, h: int, w: int) -> Tensor:
    """Return which token (row) sees which (column)."""

    def near(i: int, j: int, length: int) -> bool:
        if level.kind == "neighborhood":
            first = min(max(i - level.window // 2, 0), length - level.window)
            return first <= j < first + level.window
        if level.kind == "shifted-window":
            return (i + shift) // level.window == (j + shift) // level.window
        return True

    places = [(i, j) for i in range(h) for j in range(w)]
    return torch.tensor([[near(a, c, h) and near(b, d, w) for c, d in places] for a, b in places])


def denoised(
    raw: Callable[[Tensor, Tensor], Tensor], z: Tensor, r: Any, sigma_data: float
) -> Tensor:
    """EDM's preconditioning (Karras et al. 2022, Table 1) at the noise level r of z = x + r w."""
    r = torch.as_tensor(r).float().expand(len(z))
    scale = (r**2 + sigma_data**2).rsqrt()[:, None, None, None]
    return (sigma_data * scale) ** 2 * z + r[:, None, None, None] * sigma_data * scale * raw(
        scale * z, r.log() / 4
    )
