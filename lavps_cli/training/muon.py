"""Muon (Jordan et al. 2024): steps along the orthogonalised momentum of matrices.

PyTorch's own iterates in bfloat16 whatever the device, which on CPUs without such instructions
takes far longer than the training step itself; and it came with PyTorch 2.9.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lavps_cli.core.precision import multiplies_bf16

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration: steepest at zero, about 1 (0.7 to 1.2) from 0.1 on."""
ITERATIONS = 5
EPS = 1e-7


def orthogonalised(matrix: Float[Tensor, " m n"]) -> Float[Tensor, " m n"]:
    """Return about U V^T of the singular value decomposition, by Newton-Schulz iterations."""
    a, b, c = COEFFICIENTS
    precise = not multiplies_bf16(matrix.device)
    x = matrix.float() if precise else matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.mT if tall else x
    x = x / x.norm().clamp(min=EPS)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; steps have the size of AdamW's (Liu et al. 2025).

    Args:
        params: Matrices.
        lr: Rate.
        weight_decay: Decoupled, a step.
        momentum: Decay of the running mean of gradients.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Take one step; `closure` is not called."""
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                mean = state["momentum_buffer"]
                mean.lerp_(parameter.grad, 1 - momentum)
                update = orthogonalised(parameter.grad.lerp(mean, momentum))
                parameter.mul_(1 - lr * group["weight_decay"])
                # An orthogonal m x n matrix has entries of 1 / sqrt(max(m, n)); AdamW's are 0.2.
                size = 0.2 * max(parameter.shape) ** 0.5
                parameter.add_(update.to(parameter), alpha=-lr * size)
