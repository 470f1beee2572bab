"""Muon (Jordan et al. 2024): steps along the orthogonalised momentum of matrices.

PyTorch's own iterates in bfloat16 whatever the device, which on CPUs without such instructions
takes far longer than the training step itself; and it came with PyTorch 2.9.
"""

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lavps_cli.core.precision import multiplies_bf16
from lavps_cli.training.sharding import gathered_state, like

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration: steepest at zero, about 1 (0.7 to 1.2) from 0.1 on."""
ITERATIONS = 5
EPS = 1e-7


def orthogonalised(matrices: Float[Tensor, "k m n"]) -> Float[Tensor, "k m n"]:
    """Return about U V^T of the singular value decompositions, by Newton-Schulz iterations."""
    a, b, c = COEFFICIENTS
    precise = not multiplies_bf16(matrices.device)
    x = matrices.float() if precise else matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / x.flatten(1).norm(dim=1).clamp(min=EPS)[:, None, None]
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
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
            # Those of one shape at once: one by one, a GPU would mostly wait for the next call.
            shapes: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for shape, several in shapes.items():
                self._step(several, shape, group)

    def _step(self, several: list[Tensor], shape: torch.Size, group: dict[str, Any]) -> None:
        lr, momentum = group["lr"], group["momentum"]
        for parameter in several:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        gradients = [cast(Tensor, parameter.grad) for parameter in several]
        means = [self.state[parameter]["momentum_buffer"] for parameter in several]
        torch._foreach_lerp_(means, gradients, 1 - momentum)
        ahead = torch._foreach_lerp(gradients, means, momentum)
        whole = torch.stack([gathered_state(each) for each in ahead])
        updates = orthogonalised(whole).to(several[0].dtype)
        torch._foreach_mul_(several, 1 - lr * group["weight_decay"])
        # An orthogonal m x n matrix has entries of 1 / sqrt(max(m, n)); AdamW's are 0.2.
        size = 0.2 * max(shape) ** 0.5
        own = [like(update, parameter) for update, parameter in zip(updates, several, strict=True)]
        torch._foreach_add_(several, own, alpha=-lr * size)
