"""Families of operators, p_op of Algorithm 1, as texts name them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from lavps_cli.core.operator import LinearOperator
from lavps_cli.errors import UsageError
from lavps_cli.operators.blur import Blur
from lavps_cli.operators.denoising import Denoising
from lavps_cli.operators.inpainting import Inpainting, centre_mask, pixel_mask, rectangle_mask
from lavps_cli.operators.kernels import gaussian_kernel, motion_kernel
from lavps_cli.operators.super_resolution import SuperResolution

DrawOperator: TypeAlias = Callable[[int, int, Generator], LinearOperator]
"""Number of pictures, their side, and a generator -> an operator, its parameters per picture."""

SIGMA_Y = 0.05
_PATTERN = r"(?:([\d.]+)\*)?([a-z]+)(?::([^+]+))?(?:\+([\d.]+))?"
GRAMMAR = (
    "[SHARE*]KIND[:SPEC][+SIGMA], with KIND:SPEC one of  sr:4  sr:2-4  deblur:21@0.9 (one kernel)  "
    "deblur:9-27@0-1 (random kernels)  gaussian:7-27  inpaint:centre  inpaint:rect  "
    "inpaint:pixels@0.8-0.85  denoise"
)


@dataclass(frozen=True, eq=False)
class Family:
    """Operators of one kind, with the noise of their observations."""

    name: str
    """As it was given."""
    draw: DrawOperator
    sigma_y: float = SIGMA_Y
    share: float = 1.0
    """How often it is drawn, relative to the other families."""


def parse_families(text: str, size: int) -> list[Family]:
    """Return the families that a text lists, separated by commas, for pictures of that side.

    Raises:
        UsageError: It does not follow the grammar, or does not fit the pictures.
    """
    return [_family(part.strip(), size) for part in text.split(",")]


def _family(text: str, size: int) -> Family:
    match = re.fullmatch(_PATTERN, text)
    try:
        if match is None:
            raise ValueError("it does not follow the grammar")
        share, kind, spec, sigma = match.groups()
        draw = _KINDS[kind](spec or "", size)
        family = Family(text, draw, float(sigma or SIGMA_Y), float(share or 1))
        if family.sigma_y <= 0 or family.share <= 0:
            raise ValueError("shares and noise levels are positive")
    except KeyError:
        raise UsageError(f"--operators {text}: there is no such kind.", GRAMMAR) from None
    except ValueError as error:
        raise UsageError(f"--operators {text}: {error}.", GRAMMAR) from error
    return family


def covers(trained: str, asked: str) -> bool:
    """Return whether a family that was trained on holds every operator of another; noise aside.

    A text that does not follow the grammar holds nothing.
    """
    a, b = _reach(trained), _reach(asked)
    if a is None or b is None or a[0] != b[0] or len(a[1]) != len(b[1]):
        return False
    pairs = zip(a[1], b[1], strict=True)
    return all(low <= low_b and high_b <= high for (low, high), (low_b, high_b) in pairs)


def _reach(text: str) -> tuple[str, list[tuple[float, float]]] | None:
    """Return the kind of a family and the ranges of its parameters."""
    match = re.fullmatch(_PATTERN, text.strip())
    if match is None:
        return None
    _, kind, spec, _ = match.groups()
    spec = spec or {"sr": "4", "deblur": "21@0.9", "gaussian": "7-27"}.get(kind, "")
    try:
        if kind == "inpaint":
            mask, _, dropped = spec.partition("@")
            return f"{kind}:{mask}", [_range(dropped or "0.8-0.85")] if mask == "pixels" else []
        if kind == "deblur" and "@" not in spec:
            spec += "@0.9"
        return kind, [_range(part) for part in spec.split("@")] if spec else []
    except ValueError:
        return None


def _range(text: str) -> tuple[float, float]:
    """Return the ends of `a-b`, or `a` twice."""
    low, _, high = text.partition("-")
    ends = float(low), float(high or low)
    if ends[0] > ends[1]:
        raise ValueError(f"{text} runs downwards")
    return ends


def _uniform(ends: tuple[float, float], generator: Generator) -> float:
    return ends[0] + (ends[1] - ends[0]) * float(torch.rand((), generator=generator))


def _sr(spec: str, size: int) -> DrawOperator:
    low, high = _range(spec or "4")
    scales = [r for r in range(max(int(low), 2), int(high) + 1) if size % r == 0]
    if not scales:
        raise ValueError(f"no scale of {spec} divides {size} pixels")

    def draw(count: int, size: int, generator: Generator) -> LinearOperator:
        which = int(torch.randint(len(scales), (), generator=generator))
        return SuperResolution(scales[which])

    return draw


def _odd_sizes(ends: tuple[float, float], size: int) -> list[int]:
    sizes = [n for n in range(int(ends[0]), int(ends[1]) + 1) if n % 2 and n >= 3]
    if not sizes:
        raise ValueError("kernels have odd sides from 3 on")
    if sizes[-1] > size:
        raise ValueError(f"kernels of {sizes[-1]} pixels exceed pictures of {size}")
    return sizes


def _framed(kernels: list[Tensor], side: int) -> Tensor:
    return torch.stack([pad(k, ((side - k.shape[-1]) // 2,) * 4) for k in kernels])


def _deblur(spec: str, size: int) -> DrawOperator:
    of_size, _, of_intensity = (spec or "21@0.9").partition("@")
    sizes = _odd_sizes(_range(of_size), size)
    intensity = _range(of_intensity or "0.9")
    if not 0 <= intensity[0] <= intensity[1] <= 1:
        raise ValueError("intensities lie between 0 and 1")
    if len(sizes) == 1 and intensity[0] == intensity[1]:
        fixed = motion_kernel(sizes[0], intensity[0], Generator().manual_seed(0))
        return lambda count, size, generator: Blur(fixed, "circular")

    def draw(count: int, size: int, generator: Generator) -> LinearOperator:
        kernels = [
            motion_kernel(
                sizes[int(torch.randint(len(sizes), (), generator=generator))],
                _uniform(intensity, generator),
                generator,
            )
            for _ in range(count)
        ]
        return Blur(_framed(kernels, sizes[-1]), "circular")

    return draw


def _gaussian(spec: str, size: int) -> DrawOperator:
    sizes = _odd_sizes(_range(spec or "7-27"), size)

    def draw(count: int, size: int, generator: Generator) -> LinearOperator:
        kernels = []
        for _ in range(count):
            side = sizes[int(torch.randint(len(sizes), (), generator=generator))]
            kernels.append(gaussian_kernel(side, 0.6 + _uniform((0.0, side / 6), generator)))
        return Blur(_framed(kernels, sizes[-1]), "circular")

    return draw


def _inpaint(spec: str, size: int) -> DrawOperator:
    kind, _, dropped = spec.partition("@")
    if dropped and kind != "pixels":
        raise ValueError("only pixels take a share")
    low, high = _range(dropped or "0.8-0.85")
    if not 0 <= low <= high < 1:
        raise ValueError("shares of missing pixels lie between 0 and 1")
    masks: dict[str, Callable[[int, Generator], Tensor]] = {
        "centre": lambda size, generator: centre_mask(size, size),
        "rect": lambda size, generator: rectangle_mask(size, size, generator),
        "pixels": lambda size, generator: pixel_mask(size, size, generator, low, high),
    }
    if kind not in masks:
        raise ValueError(f"masks are {', '.join(masks)}")
    mask = masks[kind]
    return lambda count, size, generator: Inpainting(
        torch.stack([mask(size, generator) for _ in range(count)])
    )


def _denoise(spec: str, size: int) -> DrawOperator:
    if spec:
        raise ValueError("denoise takes no specification; its noise is written denoise+0.1")
    return lambda count, size, generator: Denoising()


_KINDS: dict[str, Callable[[str, int], DrawOperator]] = {
    "sr": _sr,
    "deblur": _deblur,
    "gaussian": _gaussian,
    "inpaint": _inpaint,
    "denoise": _denoise,
}
