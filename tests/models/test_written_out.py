"""What is written out for CPUs is what the plain formulas and autograd make of it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from lavps_cli.models import attention, hdit_layers
from lavps_cli.models.hdit import HDiT, HDiTConfig
from lavps_cli.models.hdit_layers import LevelConfig, OverlapIn, OverlapOut, rms_norm


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (attention, hdit_layers):
        monkeypatch.setattr(module, "is_cheaper", lambda x: False)


def both(
    monkeypatch: pytest.MonkeyPatch, f: Callable[..., Tensor], inputs: list[Tensor]
) -> list[list[Tensor]]:
    """The value and the gradients, written out and plain."""
    results = []
    for plain in (False, True):
        if plain:
            plainly(monkeypatch)
        out = f(*inputs)
        weight = random(*out.shape, seed=9).to(out.dtype)
        results.append([out, *torch.autograd.grad((out * weight).sum(), inputs)])
    return results


def network(first: int = 0, **changes: object) -> HDiT:
    """Return a network whose numbers depend on `first` alone."""
    levels = tuple(LevelConfig(depth=2, width=w, d_ff=2 * w, d_head=8, window=5) for w in (16, 24))
    settings = {"levels": levels, "patch_size": 2, "mapping_width": 16, "mapping_d_ff": 32}
    made = HDiT(HDiTConfig(**(settings | changes)))
    with torch.no_grad():
        for i, x in enumerate([*made.parameters(), *made.buffers()], first):
            w = random(*x.shape, seed=i).to(x)
            x.copy_(1 + 0.1 * w if x.ndim == 1 else w * x.shape[-1] ** -0.5)
    return made


@pytest.mark.parametrize("scale", [(6,), (2, 1, 1, 6)])
def test_normalisation(monkeypatch: pytest.MonkeyPatch, scale: tuple[int, ...]) -> None:
    inputs = [random(2, 3, 4, 6).requires_grad_(), random(*scale, seed=1).requires_grad_()]
    for a, b in zip(*both(monkeypatch, rms_norm, inputs), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", ["neighbourhood", "shifted_window", "global"])
@pytest.mark.parametrize(("h", "w"), [(16, 16), (40, 28), (4, 52)])
def test_whole_network(monkeypatch: pytest.MonkeyPatch, kind: str, h: int, w: int) -> None:
    levels = tuple(
        LevelConfig(depth=2, width=width, d_ff=width, d_head=8, attention=kind, window=5)
        for width in (16, 24)
    )
    made = network(levels=levels, stem="overlap").double()
    inputs = [random(2, 3, h, w).requires_grad_(), *made.parameters()]
    noise = random(2, seed=3)
    for a, b in zip(*both(monkeypatch, lambda x, *_: made(x, noise), inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_in_float32_and_bfloat16_it_rounds_no_more_than_the_plain_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, noise = random(2, 3, 40, 28), random(2, seed=3)
    made, exact = [], []
    for seed in range(4):  # One network rounds twice as much as another.
        made.append(network(1000 * seed).double())
        exact.append(made[-1](x, noise).detach())

    def error(kind: torch.dtype | None) -> float:
        with torch.autocast("cpu", kind, enabled=kind is not None):
            found = [each.float()(x.float(), noise.float()).detach() for each in made]
        off = [(a - b).square().mean() for a, b in zip(found, exact, strict=True)]
        return float(torch.stack(off).mean().sqrt())

    kinds = (None, torch.bfloat16)
    ours = [error(kind) for kind in kinds]
    plainly(monkeypatch)
    plain = [error(kind) for kind in kinds]
    assert ours[0] < max(2 * plain[0], 1e-6)
    assert ours[1] < 1.5 * plain[1]


@pytest.mark.parametrize("patch", [2, 4])
def test_overlapping_patches_are_a_convolution_and_its_transpose(patch: int) -> None:
    into, out = OverlapIn(3, 5, patch).double(), OverlapOut(5, 3, patch).double()
    x, tokens = random(2, 3 * patch, 4 * patch, 3), random(2, 3, 4, 5)
    settings = {"stride": patch, "padding": patch // 2}
    torch.testing.assert_close(
        into(x).movedim(-1, 1), F.conv2d(x.movedim(-1, 1), into.proj.weight, **settings)
    )
    torch.testing.assert_close(
        out(tokens).movedim(-1, 1),
        F.conv_transpose2d(tokens.movedim(-1, 1), out.proj.weight, **settings),
    )
    assert into(x).is_contiguous()


class Products(TorchDispatchMode):
    """Shapes of the matrix products that run."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[torch.Size] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm):
            self.shapes.append(out.shape[-2:])
        return out


def test_a_frozen_network_makes_no_gradients_of_its_weights() -> None:
    made, noise = network(), random(1, seed=3).float()
    of_weights = {p.shape for p in made.parameters() if p.ndim == 2}
    x = random(1, 3, 16, 36).float().requires_grad_()
    counts, gradients = [], []
    for frozen in (False, True):
        loss = made.requires_grad_(not frozen)(x, noise).square().sum()
        with Products() as products:
            if frozen:
                gradients.append(*torch.autograd.grad(loss, [x]))
            else:
                loss.backward()
                gradients.append(x.grad)
        counts.append(sum(s in of_weights or s[::-1] in of_weights for s in products.shapes))
    assert counts[0] > 10
    assert counts[1] == 0
    assert torch.equal(*gradients)
