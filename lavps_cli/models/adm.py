"""The UNet of guided diffusion (ADM, Dhariwal and Nichol 2021).

Attribute names are those of guided-diffusion (MIT), so that its state dicts load without a table;
the code is our own.
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lavps_cli.core.types import Image
from lavps_cli.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class AdmConfig:
    """Everything that fixes the shape of the network."""

    model_channels: int
    widths: tuple[int, ...]
    """Channels of each level, finest first."""
    num_res_blocks: int
    attention: tuple[bool, ...]
    """Whether the blocks of a level have attention."""
    num_heads: int | None = None
    num_head_channels: int | None = 64
    """Of each head, where `num_heads` does not say."""
    scale_shift: bool = True
    """Whether the time scales and shifts the features, or is added to them."""
    updown: bool = True
    """Whether pictures are reduced and enlarged in residual blocks, or by convolutions."""
    new_order: bool = False
    """Whether queries, keys and values are split before the heads."""
    num_classes: int = 0
    out_channels: int = 6
    """6 with learnt variances."""

    def __post_init__(self) -> None:
        if not self.widths or len(self.widths) != len(self.attention):
            raise UsageError("widths and attention have one entry for each level.")
        if any(width % 32 for width in self.widths):
            raise UsageError("widths are multiples of 32.")
        for width, present in zip(self.widths, (*self.attention[:-1], True), strict=True):
            if present and width % self.heads(width):
                raise UsageError(f"{width} channels do not divide into {self.heads(width)} heads.")

    def heads(self, width: int) -> int:
        """Return the number of heads at a width."""
        if self.num_heads is not None:
            return self.num_heads
        return max(width // (self.num_head_channels or width), 1)

    @property
    def multiple(self) -> int:
        """Heights and widths must be multiples of this."""
        return int(2 ** (len(self.widths) - 1))


class GroupNorm(nn.GroupNorm):
    """Group normalisation in at least float32, whatever goes in."""

    def __init__(self, channels: int) -> None:
        super().__init__(32, channels)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


def _zeroed(conv: nn.Module) -> nn.Module:
    for w in conv.parameters():
        nn.init.zeros_(w)
    return conv


class Downsample(nn.Module):
    """Half the side, by a convolution or a mean."""

    def __init__(self, channels: int, *, learnt: bool) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, 2, 1) if learnt else nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.op(x))


class Upsample(nn.Module):
    """Twice the side, by repetition, and a convolution if that is learnt."""

    def __init__(self, channels: int, *, learnt: bool) -> None:
        super().__init__()
        if learnt:
            self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return cast(Tensor, self.conv(x)) if hasattr(self, "conv") else x


class ResBlock(nn.Module):
    """Two convolutions with the time between them, and a skip; `change` is up, down or nothing."""

    def __init__(
        self, channels: int, outputs: int, emb: int, *, scale_shift: bool, change: str = ""
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.in_layers = nn.Sequential(
            GroupNorm(channels), nn.SiLU(), nn.Conv2d(channels, outputs, 3, padding=1)
        )
        self.change: nn.Module = nn.Identity()
        if change:
            self.change = (Upsample if change == "up" else Downsample)(channels, learnt=False)
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(emb, 2 * outputs if scale_shift else outputs)
        )
        self.out_layers = nn.Sequential(
            GroupNorm(outputs),
            nn.SiLU(),
            nn.Identity(),
            _zeroed(nn.Conv2d(outputs, outputs, 3, padding=1)),
        )
        self.skip_connection: nn.Module = nn.Identity()
        if channels != outputs:
            self.skip_connection = nn.Conv2d(channels, outputs, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        norm, act, conv = self.in_layers
        h = conv(self.change(act(norm(x))))
        x = self.change(x)
        of_time = self.emb_layers(emb).to(h.dtype)[..., None, None]
        if self.scale_shift:
            scale, shift = of_time.chunk(2, 1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + of_time)
        return cast(Tensor, self.skip_connection(x) + h)


class AttentionBlock(nn.Module):
    """Attention of every pixel over all pixels, and its skip."""

    def __init__(self, channels: int, heads: int, *, new_order: bool) -> None:
        super().__init__()
        self.heads, self.new_order = heads, new_order
        self.norm = GroupNorm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = _zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        b, c, h, w = x.shape
        flat = x.reshape(b, c, h * w)
        qkv = self.qkv(self.norm(flat))
        order = (b, 3, self.heads, c // self.heads, h * w)
        if self.new_order:
            q, k, v = qkv.view(order).unbind(1)
        else:
            q, k, v = qkv.view(b, self.heads, 3, c // self.heads, h * w).unbind(2)
        out = F.scaled_dot_product_attention(*(y.transpose(-1, -2) for y in (q, k, v)))
        flat = flat + self.proj_out(out.transpose(-1, -2).reshape(b, c, h * w))
        return flat.view(b, c, h, w)


class Block(nn.ModuleList):
    """Layers of one place of the UNet; some want the time, some do not."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(layers)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock | AttentionBlock) else layer(x)
        return x


class Adm(nn.Module):
    """The raw network: a picture of unit variance, a step and a label in, `out_channels` out."""

    def __init__(self, config: AdmConfig) -> None:
        super().__init__()
        self.config = config
        first, emb = config.model_channels, 4 * config.model_channels
        self.time_embed = nn.Sequential(nn.Linear(first, emb), nn.SiLU(), nn.Linear(emb, emb))
        if config.num_classes:
            self.label_emb = nn.Embedding(config.num_classes, emb)

        def res(inputs: int, outputs: int, change: str = "") -> ResBlock:
            return ResBlock(inputs, outputs, emb, scale_shift=config.scale_shift, change=change)

        def attend(width: int) -> AttentionBlock:
            return AttentionBlock(width, config.heads(width), new_order=config.new_order)

        ch = config.widths[0]
        blocks = [Block(nn.Conv2d(3, ch, 3, padding=1))]
        skips, last = [ch], len(config.widths) - 1
        for level, (width, attention) in enumerate(
            zip(config.widths, config.attention, strict=True)
        ):
            for _ in range(config.num_res_blocks):
                blocks.append(Block(res(ch, width), *([attend(width)] if attention else [])))
                ch = width
                skips.append(ch)
            if level < last:
                down = res(ch, ch, "down") if config.updown else Downsample(ch, learnt=True)
                blocks.append(Block(down))
                skips.append(ch)
        self.input_blocks = nn.ModuleList(blocks)
        self.middle_block = Block(res(ch, ch), attend(ch), res(ch, ch))
        blocks = []
        for level in range(last, -1, -1):
            width, attention = config.widths[level], config.attention[level]
            for i in range(config.num_res_blocks + 1):
                layers: list[nn.Module] = [res(ch + skips.pop(), width)]
                ch = width
                if attention:
                    layers.append(attend(width))
                if level and i == config.num_res_blocks:
                    up = res(ch, ch, "up") if config.updown else Upsample(ch, learnt=True)
                    layers.append(up)
                blocks.append(Block(*layers))
        self.output_blocks = nn.ModuleList(blocks)
        self.out = nn.Sequential(
            GroupNorm(ch), nn.SiLU(), _zeroed(nn.Conv2d(ch, config.out_channels, 3, padding=1))
        )

    def forward(
        self, x: Image, step: Float[Tensor, " b"], class_labels: Tensor | None = None
    ) -> Float[Tensor, " b out h w"]:
        emb = self.time_embed(sinusoids(step, self.config.model_channels).to(x.dtype))
        if class_labels is not None:
            emb = emb + self.label_emb(class_labels)
        h, skips = x, []
        for block in self.input_blocks:
            h = block(h, emb)
            skips.append(h)
        h = self.middle_block(h, emb)
        for block in self.output_blocks:
            h = block(torch.cat([h, skips.pop()], 1), emb)
        out: Tensor = self.out(h)
        return out


def sinusoids(step: Float[Tensor, " b"], width: int) -> Float[Tensor, " b f"]:
    """Return cosines and sines of a step at `width` / 2 frequencies from 1 to 1 / 10 000."""
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float32, device=step.device) / half
    angles = step.float()[:, None] * torch.exp(-math.log(10_000) * exponents)
    return torch.cat([angles.cos(), angles.sin()], 1)
