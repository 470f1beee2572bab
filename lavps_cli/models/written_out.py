"""Layers of the HDiT with their gradients written out, for CPUs.

There the time of a small network goes into passes over memory as much as into products. What
autograd makes of the plain formulas of `hdit_layers.py` takes two to three times as many passes as
are needed: a gradient of zeros for every slice, a copy for every stack. The values are those of the
plain formulas up to rounding; a second derivative there is not.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

EPS = 1e-6


def is_cheaper(x: Tensor) -> bool:
    """Return whether these layers are for `x`: compilers and other devices fuse by themselves."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def _inverse_norm(x: Tensor, mean: bool) -> Tensor:
    """Return 1 / sqrt(EPS + sum or mean of squares) over the last axis, in float32 at least."""
    kind = torch.promote_types(x.dtype, torch.float32)
    square = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=kind).square_()
    return (square.div_(x.shape[-1]) if mean else square).add_(EPS).rsqrt_()


def rms_normalised(x: Tensor, scale: Tensor) -> Tensor:
    """Return x over its root mean square, times a scale that broadcasts: (c) or (b, 1, 1, c)."""
    out: Tensor = _RmsNormalised.apply(x, scale)  # type: ignore[no-untyped-call]
    return out


def split_heads(
    qkv: Tensor, scale: Tensor, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values out of (b, h, w, 3, n, d).

    Queries and keys are brought to the length `scale` of their head, and their first features
    rotated in pairs by the angles of the token, whose cosines and sines are (h, w, n, r).
    """
    heads: tuple[Tensor, Tensor, Tensor]
    heads = _SplitHeads.apply(qkv, scale, cos, sin)  # type: ignore[no-untyped-call]
    return heads


class _RmsNormalised(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        inverse = _inverse_norm(x, mean=True)
        ctx.save_for_backward(x, scale, inverse)
        return (x * inverse.to(x.dtype)).mul_(scale.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, scale, inverse = ctx.saved_tensors
        for_scale = None
        if ctx.needs_input_grad[1]:
            for_scale = (g * x * inverse).sum_to_size(scale.shape).to(scale.dtype)
        g = g * scale.to(g.dtype)
        along = (g * x).sum(-1, keepdim=True, dtype=inverse.dtype)
        along = along.mul_(inverse**3).div_(-x.shape[-1])
        return g.mul_(inverse.to(g.dtype)).addcmul_(x, along.to(g.dtype)), for_scale


class _SplitHeads(Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, scale: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = qkv[..., :2, :, :]
        inverse = _inverse_norm(x, mean=False)
        ctx.save_for_backward(qkv, scale, cos, sin, inverse)
        out = _rotated(x * (inverse * scale[:, None]).to(x.dtype), cos, sin)
        q, k = out.unbind(3)
        return q, k, qkv[..., 2, :, :]

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, for_q: Tensor, for_k: Tensor, for_v: Tensor
    ) -> tuple[Tensor, Tensor | None, None, None]:
        qkv, scale, cos, sin, inverse = ctx.saved_tensors
        whole = torch.stack([for_q, for_k, for_v], 3)
        x, g = qkv[..., :2, :, :], _rotated(whole[..., :2, :, :], cos, -sin)
        along = (g * x).sum(-1, keepdim=True, dtype=inverse.dtype)
        for_scale = None
        if ctx.needs_input_grad[1]:
            for_scale = (along * inverse).sum((0, 1, 2, 3, 5)).to(scale.dtype)
        factor = inverse * scale[:, None]
        along = along.mul_(factor).mul_(inverse**2).neg_()
        g.mul_(factor.to(g.dtype)).addcmul_(x, along.to(g.dtype))
        return whole, for_scale, None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return `x` of (b, h, w, 2, n, d) after rotating it in place."""
    r = cos.shape[-1]
    turned = x[..., : 2 * r]
    other = torch.cat([turned[..., r:], turned[..., :r]], -1)
    other.mul_(torch.cat([-sin, sin], -1)[:, :, None])
    turned.mul_(torch.cat([cos, cos], -1)[:, :, None]).add_(other)
    return x
