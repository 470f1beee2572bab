"""Layers of the hourglass diffusion transformer (HDiT, Crowson et al. 2024).

Attribute names are those of k-diffusion's image_transformer_v2 (MIT), so that its state dicts
load without a table; the code is our own.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lavps_cli.models.attention import (
    AttentionKind,
    Joint,
    global_attention,
    neighbourhood_attention,
    rotate,
    shifted_window_attention,
)
from lavps_cli.models.degradation_layers import FeatureDegradation, Seen
from lavps_cli.models.written_out import is_cheaper, rms_normalised, split_heads


@dataclass(frozen=True, kw_only=True)
class LevelConfig:
    """One level of the hourglass."""

    depth: int
    width: int
    d_ff: int
    d_head: int = 64
    attention: AttentionKind = "neighbourhood"
    window: int = 7
    joint: int | None = None
    """Feature images of the operator-aware layers of this level; None for the network's own."""


def rms_norm(x: Tensor, scale: Tensor) -> Tensor:
    """Return `x` scaled to unit mean square over its last axis, times `scale`."""
    if is_cheaper(x):
        return rms_normalised(x, scale)
    square = at_least_float(x).square().mean(-1, keepdim=True)
    return x * (at_least_float(scale) * torch.rsqrt(square + 1e-6)).to(x.dtype)


def at_least_float(x: Tensor) -> Tensor:
    """Return `x` in float32, unless it is more precise already."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def zeroed(layer: nn.Linear) -> nn.Linear:
    """Return the layer with zero weights."""
    nn.init.zeros_(layer.weight)
    return layer


class RMSNorm(nn.Module):
    """RMS normalisation with a learnt scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.scale)


class AdaRMSNorm(nn.Module):
    """RMS normalisation whose scale depends on the condition."""

    def __init__(self, width: int, cond_width: int) -> None:
        super().__init__()
        self.linear = zeroed(nn.Linear(cond_width, width, bias=False))

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        return rms_norm(x, at_least_float(self.linear(cond))[:, None, None, :] + 1)


class LinearGEGLU(nn.Linear):
    """A linear layer to 2 d_ff features, half of which gate the others by GELU."""

    def __init__(self, width: int, d_ff: int) -> None:
        super().__init__(width, 2 * d_ff, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        # Two products, not one: GELU takes half as long where its input lies in one piece.
        value, gate = (F.linear(x, weight) for weight in self.weight.chunk(2))
        return value * F.gelu(gate)


class FourierFeatures(nn.Module):
    """Cosines and sines of fixed random projections."""

    weight: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(outputs // 2, inputs))

    def forward(self, x: Float[Tensor, " b f"]) -> Float[Tensor, " b g"]:
        # Not a matrix product: autocast would round the noise level to eight bits.
        angle = 2 * math.pi * (x[:, None, :] * self.weight).sum(-1)
        return torch.cat([angle.cos(), angle.sin()], -1)


class AxialRoPE(nn.Module):
    """Angles of the rotary embedding: each frequency along either axis, different by head."""

    freqs: Tensor

    def __init__(self, d_head: int, heads: int) -> None:
        super().__init__()
        count = d_head // 8
        freqs = torch.linspace(math.log(math.pi), math.log(10 * math.pi), heads * count + 1)[:-1]
        self.register_buffer("freqs", freqs.exp().view(count, heads).T.contiguous())

    def forward(
        self, pos: Float[Tensor, " h w 2"]
    ) -> tuple[Float[Tensor, " h w n r"], Float[Tensor, " h w n r"]]:
        """Return cosines and sines; few are computed, as an angle belongs to a row or a column."""
        h, w, _ = pos.shape
        down, across = (x[:, None, None] * self.freqs for x in (pos[:, 0, 0], pos[0, :, 1]))

        def spread(y: Tensor, x: Tensor) -> Tensor:
            return torch.cat([y[:, None].expand(h, w, *y.shape[1:]), x.expand(h, *x.shape)], -1)

        return spread(down.cos(), across.cos()), spread(down.sin(), across.sin())


class SelfAttention(nn.Module):
    """Cosine-similarity attention with a learnt temperature by head, and its skip."""

    def __init__(
        self, level: LevelConfig, cond_width: int, *, shifted: bool, joint: int, pixels: int
    ) -> None:
        super().__init__()
        heads = level.width // level.d_head
        self.level, self.shift = level, level.window // 2 if shifted else 0
        self.norm = AdaRMSNorm(level.width, cond_width)
        self.qkv_proj = nn.Linear(level.width, 3 * level.width, bias=False)
        self.scale = nn.Parameter(torch.full((heads,), 10.0))
        self.pos_emb = AxialRoPE(level.d_head, heads)
        self.out_proj = zeroed(nn.Linear(level.width, level.width, bias=False))
        if joint:
            self.feature_degradation = FeatureDegradation(level.width, pixels, joint)
            self.jnorm = AdaRMSNorm(level.width, cond_width)
            self.jk_proj = nn.Linear(2 * level.width, level.width, bias=False)
            self.jv_proj = nn.Linear(level.width, level.width, bias=False)

    def forward(self, x: Tensor, pos: Tensor, cond: Tensor, seen: Seen | None) -> Tensor:
        b, h, w, _ = x.shape
        normed = self.norm(x, cond)
        qkv = self.qkv_proj(normed).view(b, h, w, 3, -1, self.level.d_head)
        cos, sin = (table.to(qkv.dtype) for table in self.pos_emb(pos))
        scale = self.scale.sqrt()

        def placed(y: Tensor) -> Tensor:
            length = torch.rsqrt(_sum_of_squares(y) + 1e-6)
            return rotate(y * (scale[:, None] * length).to(y.dtype), cos, sin)

        joint: Joint | None = None
        if hasattr(self, "feature_degradation"):
            # Without an observation its tokens are zero, so that one network serves both.
            f = torch.zeros_like(x) if seen is None else self.feature_degradation(x, seen)
            f = self.jnorm(f, cond)
            jk, jv = self.jk_proj(torch.cat([normed, f], -1)), self.jv_proj(f)
            jk, jv = (y.view(b, h, w, -1, self.level.d_head) for y in (jk, jv))
            joint = placed(jk), jv
        if is_cheaper(qkv):
            q, k, v = split_heads(qkv, scale, cos, sin)
        else:
            q, k, v = qkv.unbind(3)
            q, k = placed(q), placed(k)
        if self.level.attention == "global":
            out = global_attention(q, k, v, joint)
        elif self.level.attention == "neighbourhood":
            out = neighbourhood_attention(q, k, v, self.level.window, joint)
        else:
            out = shifted_window_attention(q, k, v, self.level.window, self.shift, joint)
        return x + self.out_proj(out.flatten(-2))


def _sum_of_squares(x: Tensor) -> Tensor:
    return at_least_float(x).square().sum(-1, keepdim=True)


class FeedForward(nn.Module):
    """The gated feed-forward block and its skip."""

    def __init__(self, level: LevelConfig, cond_width: int) -> None:
        super().__init__()
        self.norm = AdaRMSNorm(level.width, cond_width)
        self.up_proj = LinearGEGLU(level.width, level.d_ff)
        self.down_proj = zeroed(nn.Linear(level.d_ff, level.width, bias=False))

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        return x + self.down_proj(self.up_proj(self.norm(x, cond)))


class TransformerLayer(nn.Module):
    """Attention, if the level has any, then feed-forward."""

    def __init__(
        self, level: LevelConfig, cond_width: int, *, shifted: bool, joint: int, pixels: int
    ) -> None:
        super().__init__()
        if level.attention != "none":
            self.self_attn = SelfAttention(
                level, cond_width, shifted=shifted, joint=joint, pixels=pixels
            )
        self.ff = FeedForward(level, cond_width)

    def forward(self, x: Tensor, pos: Tensor, cond: Tensor, seen: Seen | None) -> Tensor:
        if hasattr(self, "self_attn"):
            x = self.self_attn(x, pos, cond, seen)
        return self.ff(x, cond)


class Level(nn.ModuleList):
    """Layers of one resolution; every other one has its windows shifted.

    The way up counts on from where the way down stopped, from layer `first`.
    """

    def __init__(
        self, level: LevelConfig, cond_width: int, *, joint: int, pixels: int, first: int = 0
    ) -> None:
        super().__init__(
            TransformerLayer(
                level, cond_width, shifted=bool((first + i) % 2), joint=joint, pixels=pixels
            )
            for i in range(level.depth)
        )

    def forward(self, x: Tensor, pos: Tensor, cond: Tensor, seen: Seen | None) -> Tensor:
        for layer in self:
            x = layer(x, pos, cond, seen)
        return x


class TokenMerge(nn.Module):
    """Patches of p x p tokens become one."""

    def __init__(self, inputs: int, outputs: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Linear(inputs * patch**2, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        p = self.patch
        x = x.view(b, h // p, p, w // p, p, c).transpose(2, 3)
        return self.proj(x.reshape(b, h // p, w // p, p * p * c))


class TokenSplitWithoutSkip(nn.Module):
    """One token becomes a patch of p x p."""

    def __init__(self, inputs: int, outputs: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Linear(inputs, outputs * patch**2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, _ = x.shape
        p = self.patch
        x = self.proj(x).view(b, h, w, p, p, -1).transpose(2, 3)
        return x.reshape(b, h * p, w * p, x.shape[-1])


class TokenSplit(TokenSplitWithoutSkip):
    """One token becomes a patch of 2 x 2, mixed with the tokens of the way down."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 2)
        self.fac = nn.Parameter(torch.full((1,), 0.5))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:  # type: ignore[override]
        return torch.lerp(skip, super().forward(x), self.fac.to(skip.dtype))


class OverlapIn(nn.Module):
    """Patches of 2p x 2p pixels, p apart, become tokens: no edge falls between two patches."""

    def __init__(self, inputs: int, outputs: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, outputs, 2 * patch, patch, patch // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        # By a product, like all that follows: tokens lie in one piece, and on CPUs its gradient
        # takes a third of the time of the convolution's.
        (_, _, side, _), (p, _) = self.proj.weight.shape, self.proj.stride
        x = F.pad(x.movedim(-1, -3), (p // 2,) * 4)
        patches = x.unfold(-2, side, p).unfold(-2, side, p)
        return patches.permute(0, 2, 3, 1, 4, 5).flatten(3) @ self.proj.weight.flatten(1).T


class OverlapOut(nn.Module):
    """Tokens become patches of 2p x 2p pixels, p apart, which are added where they overlap."""

    def __init__(self, inputs: int, outputs: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.ConvTranspose2d(inputs, outputs, 2 * patch, patch, patch // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        # By a product and additions, on CPUs five times as fast as the transposed convolution.
        (_, c, _, _), (p, _) = self.proj.weight.shape, self.proj.stride
        patches = at_least_float(x @ self.proj.weight.flatten(1))
        patches = patches.view(*patches.shape[:3], c, 2, p, 2, p)
        above, below = patches.unbind(-4)
        lines = F.pad(above, (0,) * 10 + (0, 1)) + F.pad(below, (0,) * 10 + (1, 0))
        left, right = lines.unbind(-2)
        x = F.pad(left, (0,) * 6 + (0, 1)) + F.pad(right, (0,) * 6 + (1, 0))
        x = x.permute(0, 1, 4, 2, 5, 3).flatten(1, 2).flatten(2, 3)
        margin, end = p // 2, -(p // 2) or None
        return x[:, margin:end, margin:end]


class MappingBlock(nn.Module):
    """The feed-forward block of the mapping network."""

    def __init__(self, width: int, d_ff: int) -> None:
        super().__init__()
        self.norm = RMSNorm(width)
        self.up_proj = LinearGEGLU(width, d_ff)
        self.down_proj = zeroed(nn.Linear(d_ff, width, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down_proj(self.up_proj(self.norm(x)))


class MappingNetwork(nn.Module):
    """The condition, from the sum of its embeddings."""

    def __init__(self, depth: int, width: int, d_ff: int) -> None:
        super().__init__()
        self.in_norm = RMSNorm(width)
        self.blocks = nn.ModuleList(MappingBlock(width, d_ff) for _ in range(depth))
        self.out_norm = RMSNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.in_norm(x)
        for block in self.blocks:
            x = block(x)
        return self.out_norm(x)
