"""The hourglass diffusion transformer (HDiT, Crowson et al. 2024).

Attribute names are those of k-diffusion's image_transformer_v2 (MIT), so that its state dicts
load without a table; the code is our own.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lavps_cli.core.types import Image
from lavps_cli.errors import UsageError
from lavps_cli.models.attention import (
    AttentionKind,
    Joint,
    axial_positions,
    global_attention,
    neighbourhood_attention,
    rotate,
    shifted_window_attention,
)
from lavps_cli.models.degradation_layers import FeatureDegradation, Seen


@dataclass(frozen=True, kw_only=True)
class LevelConfig:
    """One level of the hourglass."""

    depth: int
    width: int
    d_ff: int
    d_head: int = 64
    attention: AttentionKind = "neighbourhood"
    window: int = 7


@dataclass(frozen=True, kw_only=True)
class HDiTConfig:
    """Everything that fixes the shape of the network."""

    levels: tuple[LevelConfig, ...]
    patch_size: int = 4
    stem: Literal["patch", "overlap"] = "patch"
    """`overlap` reads and writes patches of twice the size that overlap by half."""
    in_channels: int = 3
    out_channels: int = 3
    mapping_depth: int = 2
    mapping_width: int = 256
    mapping_d_ff: int = 768
    mapping_cond_dim: int = 0
    """Features of a further condition, added before the mapping network; 0 for none."""
    num_classes: int = 0
    joint: int = 0
    """Feature images of the operator-aware layer of every block; 0 for none."""
    rope_extent: int | None = None
    """Tokens of the first level that span [-1, 1]; None scales positions to the picture."""

    def __post_init__(self) -> None:
        if not self.levels:
            raise UsageError("a network needs at least one level.")
        for level in self.levels:
            if level.width % level.d_head or level.d_head % 8:
                raise UsageError(
                    f"level width {level.width} does not divide into heads of {level.d_head}.",
                    "d_head must divide width and be a multiple of 8.",
                )

    @property
    def multiple(self) -> int:
        """Heights and widths must be multiples of this."""
        return self.patch_size * 2 ** (len(self.levels) - 1)

    @property
    def is_local(self) -> bool:
        """Whether the network treats a picture of any size as one of its training size."""
        return self.rope_extent is not None and all(
            level.attention != "global" for level in self.levels
        )


def rms_norm(x: Tensor, scale: Tensor) -> Tensor:
    """Return `x` scaled to unit mean square over its last axis, times `scale`."""
    square = _at_least_float(x).square().mean(-1, keepdim=True)
    return x * (_at_least_float(scale) * torch.rsqrt(square + 1e-6)).to(x.dtype)


def _at_least_float(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _zero(layer: nn.Linear) -> nn.Linear:
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
        self.linear = _zero(nn.Linear(cond_width, width, bias=False))

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        return rms_norm(x, _at_least_float(self.linear(cond))[:, None, None, :] + 1)


class LinearGEGLU(nn.Linear):
    """A linear layer to 2 d_ff features, half of which gate the others by GELU."""

    def __init__(self, width: int, d_ff: int) -> None:
        super().__init__(width, 2 * d_ff, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = super().forward(x).chunk(2, -1)
        return x * F.gelu(gate)


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

    def forward(self, pos: Float[Tensor, " h w 2"]) -> Float[Tensor, " h w n r"]:
        theta = pos[:, :, None, :, None] * self.freqs[:, None, :].to(pos.dtype)
        return theta.flatten(-2)


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
        self.out_proj = _zero(nn.Linear(level.width, level.width, bias=False))
        if joint:
            self.degradation = FeatureDegradation(level.width, pixels, joint)
            self.joint_k_proj = nn.Linear(2 * level.width, level.width, bias=False)
            self.joint_v_proj = nn.Linear(level.width, level.width, bias=False)

    def forward(self, x: Tensor, pos: Tensor, cond: Tensor, seen: Seen | None) -> Tensor:
        b, h, w, _ = x.shape
        normed = self.norm(x, cond)
        q, k, v = self.qkv_proj(normed).view(b, h, w, 3, -1, self.level.d_head).unbind(3)
        scale = self.scale.sqrt()[:, None]
        theta = self.pos_emb(pos)
        cos, sin = theta.cos().to(q.dtype), theta.sin().to(q.dtype)

        def placed(y: Tensor) -> Tensor:
            unit = y * (scale * torch.rsqrt(_sum_of_squares(y) + 1e-6)).to(y.dtype)
            return rotate(unit, cos, sin)

        joint: Joint | None = None
        if hasattr(self, "degradation"):
            # Without an observation its tokens are zero, so that one network serves both.
            f = torch.zeros_like(normed) if seen is None else self.degradation(normed, seen)
            joint_k = self.joint_k_proj(torch.cat([normed, f], -1)).view_as(k)
            joint = placed(joint_k), self.joint_v_proj(f).view_as(v)
        q, k = placed(q), placed(k)
        if self.level.attention == "global":
            out = global_attention(q, k, v, joint)
        elif self.level.attention == "neighbourhood":
            out = neighbourhood_attention(q, k, v, self.level.window, joint)
        else:
            out = shifted_window_attention(q, k, v, self.level.window, self.shift, joint)
        return x + self.out_proj(out.flatten(-2))


def _sum_of_squares(x: Tensor) -> Tensor:
    return _at_least_float(x).square().sum(-1, keepdim=True)


class FeedForward(nn.Module):
    """The gated feed-forward block and its skip."""

    def __init__(self, level: LevelConfig, cond_width: int) -> None:
        super().__init__()
        self.norm = AdaRMSNorm(level.width, cond_width)
        self.up_proj = LinearGEGLU(level.width, level.d_ff)
        self.down_proj = _zero(nn.Linear(level.d_ff, level.width, bias=False))

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        return x + self.down_proj(self.up_proj(self.norm(x, cond)))


class TransformerLayer(nn.Module):
    """Attention, then feed-forward."""

    def __init__(
        self, level: LevelConfig, cond_width: int, *, shifted: bool, joint: int, pixels: int
    ) -> None:
        super().__init__()
        self.self_attn = SelfAttention(
            level, cond_width, shifted=shifted, joint=joint, pixels=pixels
        )
        self.ff = FeedForward(level, cond_width)

    def forward(self, x: Tensor, pos: Tensor, cond: Tensor, seen: Seen | None) -> Tensor:
        return self.ff(self.self_attn(x, pos, cond, seen), cond)


class Level(nn.ModuleList):
    """Layers of one resolution; every other one has its windows shifted."""

    def __init__(self, level: LevelConfig, cond_width: int, *, joint: int, pixels: int) -> None:
        super().__init__(
            TransformerLayer(level, cond_width, shifted=bool(i % 2), joint=joint, pixels=pixels)
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
        return self.proj(x.movedim(-1, -3)).movedim(-3, -1)


class OverlapOut(nn.Module):
    """Tokens become patches of 2p x 2p pixels, p apart, which are added where they overlap."""

    def __init__(self, inputs: int, outputs: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.ConvTranspose2d(inputs, outputs, 2 * patch, patch, patch // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x.movedim(-1, -3)).movedim(-3, -1)


class MappingBlock(nn.Module):
    """The feed-forward block of the mapping network."""

    def __init__(self, width: int, d_ff: int) -> None:
        super().__init__()
        self.norm = RMSNorm(width)
        self.up_proj = LinearGEGLU(width, d_ff)
        self.down_proj = _zero(nn.Linear(d_ff, width, bias=False))

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


class HDiT(nn.Module):
    """The raw network: c_noise and a scaled picture in, `out_channels` out.

    Heights and widths must be multiples of `config.multiple`.
    """

    def __init__(self, config: HDiTConfig) -> None:
        super().__init__()
        self.config = config
        levels, width = config.levels, config.mapping_width
        stem_in, stem_out = (
            (TokenMerge, TokenSplitWithoutSkip)
            if config.stem == "patch"
            else (OverlapIn, OverlapOut)
        )
        self.patch_in = stem_in(config.in_channels, levels[0].width, config.patch_size)
        self.time_emb = FourierFeatures(1, width)
        self.time_in_proj = nn.Linear(width, width, bias=False)
        self.aug_emb = FourierFeatures(9, width)
        self.aug_in_proj = nn.Linear(width, width, bias=False)
        if config.num_classes:
            self.class_emb = nn.Embedding(config.num_classes, width)
        if config.mapping_cond_dim:
            self.mapping_cond_in_proj = _zero(nn.Linear(config.mapping_cond_dim, width, bias=False))
        self.mapping = MappingNetwork(config.mapping_depth, width, config.mapping_d_ff)
        *outer, innermost = (
            {"level": level, "joint": config.joint, "pixels": config.patch_size * 2**i}
            for i, level in enumerate(levels)
        )
        self.down_levels = nn.ModuleList(Level(cond_width=width, **each) for each in outer)
        self.mid_level = Level(cond_width=width, **innermost)
        self.up_levels = nn.ModuleList(Level(cond_width=width, **each) for each in outer)
        pairs = [(a.width, b.width) for a, b in pairwise(levels)]
        self.merges = nn.ModuleList(TokenMerge(a, b, 2) for a, b in pairs)
        self.splits = nn.ModuleList(TokenSplit(b, a) for a, b in pairs)
        self.out_norm = RMSNorm(levels[0].width)
        self.patch_out = stem_out(levels[0].width, config.out_channels, config.patch_size)
        nn.init.zeros_(self.patch_out.proj.weight)

    def forward(
        self,
        x: Image,
        c_noise: Float[Tensor, " b"],
        mapping_cond: Float[Tensor, " b f"] | None = None,
        class_cond: Tensor | None = None,
        seen: Seen | None = None,
    ) -> Float[Tensor, " b out h w"]:
        cond = self.time_in_proj(self.time_emb(c_noise[:, None]))
        cond = cond + self.aug_in_proj(self.aug_emb(cond.new_zeros(len(x), 9)))
        if mapping_cond is not None:
            cond = cond + self.mapping_cond_in_proj(mapping_cond)
        if class_cond is not None:
            cond = cond + self.class_emb(class_cond)
        cond = self.mapping(cond)

        x = self.patch_in(x.movedim(-3, -1))
        extent, skips = self.config.rope_extent, []
        positions = [axial_positions(x.shape[1], x.shape[2], extent, x.device)]
        for down, merge in zip(self.down_levels, self.merges, strict=True):
            x = down(x, positions[-1], cond, seen)
            skips.append(x)
            x = merge(x)
            p = positions[-1]
            positions.append(p.view(x.shape[1], 2, x.shape[2], 2, 2).mean((1, 3)))
        x = self.mid_level(x, positions.pop(), cond, seen)
        ways_up = zip(self.up_levels, self.splits, skips, positions, strict=True)
        for up, split, skip, pos in reversed(list(ways_up)):
            x = up(split(x, skip), pos, cond, seen)
        return _at_least_float(self.patch_out(self.out_norm(x)).movedim(-1, -3))
