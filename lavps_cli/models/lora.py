"""Low-rank adaptation (Hu et al. 2022): few numbers that change a frozen network.

W of a linear layer becomes W + U V, with U of `rank` columns; U starts at zero, so an untrained
adapter changes nothing.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

TARGETS = ("qkv_proj.weight", "out_proj.weight")
"""Ends of the names of what is adapted: the projections of attention."""


class Adapter(nn.Module):
    """The numbers U and V of all adapted layers.

    Args:
        base: The network that is adapted.
        rank: Columns of U.
    """

    def __init__(self, base: nn.Module, rank: int) -> None:
        super().__init__()
        self.rank = rank
        adapted = {_key(n): w for n, w in base.named_parameters() if n.endswith(TARGETS)}
        self.up = nn.ParameterDict({n: torch.zeros(w.shape[0], rank) for n, w in adapted.items()})
        self.down = nn.ParameterDict(
            {n: torch.randn(rank, w.shape[1]) * w.shape[1] ** -0.5 for n, w in adapted.items()}
        )

    def weights(self, base: nn.Module) -> dict[str, Tensor]:
        """Return the adapted weights of the network, by its own names."""
        return {
            name: w.detach() + self.up[_key(name)] @ self.down[_key(name)]
            for name, w in base.named_parameters()
            if name.endswith(TARGETS)
        }


def _key(name: str) -> str:
    """Return the name without dots, which the name of a parameter may not have."""
    return name.replace(".", "/")


class Adapted(nn.Module):
    """A network with other weights, called as itself; gradients reach those weights.

    Args:
        base: The network; it stays as it is, and is no part of this module.
        weights: Of some of its layers.
    """

    def __init__(self, base: nn.Module, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._base, self._weights = [base], dict(weights)  # The list hides it from the module.

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        out: Tensor = functional_call(self._base[0], self._weights, args, kwargs)
        return out
