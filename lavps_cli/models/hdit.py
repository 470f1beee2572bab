"""The hourglass diffusion transformer (HDiT, Crowson et al. 2024).

Attribute names are those of k-diffusion's image_transformer_v2 (MIT), so that its state dicts
load without a table; the code is our own.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lavps_cli.core.types import Image
from lavps_cli.errors import UsageError
from lavps_cli.models.attention import axial_positions
from lavps_cli.models.degradation_layers import Seen
from lavps_cli.models.hdit_layers import (
    FourierFeatures,
    Level,
    LevelConfig,
    MappingNetwork,
    OverlapIn,
    OverlapOut,
    RMSNorm,
    TokenMerge,
    TokenSplit,
    TokenSplitWithoutSkip,
    TransformerLayer,
    at_least_float,
    zeroed,
)


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
            divides = level.d_head >= 8 and not (level.width % level.d_head or level.d_head % 8)
            if level.attention != "none" and not divides:
                raise UsageError(
                    f"level width {level.width} does not divide into heads of {level.d_head}.",
                    "d_head must divide width and be a multiple of 8.",
                )

    @property
    def multiple(self) -> int:
        """Heights and widths must be multiples of this."""
        return self.patch_size * 2 ** (len(self.levels) - 1)

    def joint_of(self, level: LevelConfig) -> int:
        """Return the number of feature images of a level's operator-aware layers."""
        return self.joint if level.joint is None else level.joint

    @property
    def is_local(self) -> bool:
        """Whether the network treats a picture of any size as one of its training size."""
        return self.rope_extent is not None and all(
            level.attention != "global" for level in self.levels
        )


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
            self.mapping_cond_in_proj = zeroed(
                nn.Linear(config.mapping_cond_dim, width, bias=False)
            )
        self.mapping = MappingNetwork(config.mapping_depth, width, config.mapping_d_ff)
        *outer, innermost = (
            {"level": level, "joint": config.joint_of(level), "pixels": config.patch_size * 2**i}
            for i, level in enumerate(levels)
        )
        self.down_levels = nn.ModuleList(Level(cond_width=width, **each) for each in outer)
        self.mid_level = Level(cond_width=width, **innermost)
        self.up_levels = nn.ModuleList(
            Level(cond_width=width, first=each["level"].depth, **each) for each in outer
        )
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
        return at_least_float(self.patch_out(self.out_norm(x)).movedim(-1, -3))


def layers(network: nn.Module) -> list[nn.Module]:
    """Return the parts that a network is made of; many are alike but for their weights."""
    stems = (TokenMerge, TokenSplitWithoutSkip, OverlapIn, OverlapOut)
    return [
        part
        for name, part in network.named_modules()
        if isinstance(part, (TransformerLayer, MappingNetwork, *stems)) or name == "out_norm"
    ]


def lower(network: nn.Module, dtype: torch.dtype) -> None:
    """Keep the matrices of a frozen HDiT in the precision that autocast multiplies them in.

    Nothing changes but that autocast does not round them anew at every call.
    """
    if not isinstance(network, HDiT) or any(map(network.config.joint_of, network.config.levels)):
        return  # Operator-aware layers multiply in float32.
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            layer.weight.data = layer.weight.data.to(dtype)
