"""What a sampler tells about each of its steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool
from torch import Tensor

from lavps_cli.core.types import Image
from lavps_cli.errors import LavpsError


@dataclass(frozen=True, eq=False)
class Step:
    """The state after one diffusion step."""

    done: int
    """Steps finished, from 1."""
    total: int
    """Steps of the whole run."""
    x0: Image
    xt: Image
    """The noisy picture that the next step begins with."""
    accepted: Bool[Tensor, " b"] | None = None
    """Which images kept the predicted start at this step; None where none was offered."""


OnStep: TypeAlias = Callable[[Step], None]


def check_finite(x0: Image, step: int) -> None:
    """Stop the run at the first value that is not a number.

    Raises:
        LavpsError: `x0` holds one.
    """
    check_steps([x0.isfinite().all()], step)


def check_steps(finite: Sequence[Tensor], first: int) -> None:
    """Stop a run whose steps, from step `first` on, tell whether all their values are numbers.

    Raises:
        LavpsError: Those of a step are not.
    """
    flags = torch.stack(tuple(finite)).tolist()
    if not all(flags):
        raise LavpsError(
            f"the sampler diverged at step {first + flags.index(False)}.",
            "Try:  --dtype fp32   or a smaller -O lr=...",
        )
