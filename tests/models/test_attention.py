import math

import pytest
import torch
from torch import Tensor

from lavps_cli.models.attention import (
    axial_positions,
    global_attention,
    neighbourhood_attention,
    rotate,
    shifted_window_attention,
)

CPU = torch.device("cpu")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def qkv(h: int, w: int, *, b: int = 2, n: int = 2, d: int = 3) -> list[Tensor]:
    return [random(b, h, w, n, d, seed=seed) for seed in range(3)]


def over_keys(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """Softmax attention of every token over the tokens it sees; seen has the shape (hw, hw)."""
    b, h, w, n, d = q.shape
    q, k, v = (x.reshape(b, h * w, n, d) for x in (q, k, v))
    logits = torch.einsum("bind,bjnd->bnij", q, k).masked_fill(~seen, -torch.inf)
    return torch.einsum("bnij,bjnd->bind", logits.softmax(-1), v).view(b, h, w, n, d)


def pairs(along_h: Tensor, along_w: Tensor) -> Tensor:
    """Which token sees which, from the same for rows and columns."""
    h, w = len(along_h), len(along_w)
    return torch.einsum("ik,jl->ijkl", along_h, along_w).reshape(h * w, h * w) > 0


def nearby(length: int, window: int) -> Tensor:
    """NATTEN's rule: the window around a token, moved inside where it would cross the border."""
    seen = torch.zeros(length, length)
    for i in range(length):
        first = min(max(i - window // 2, 0), max(length - window, 0))
        seen[i, first : first + window] = 1
    return seen


def same_window(length: int, window: int, shift: int) -> Tensor:
    """The windows of the grid after every token has moved by `shift`."""
    group = (torch.arange(length) + shift) // window
    return (group[:, None] == group[None, :]).float()


def gradients(out: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    weight = random(*out.shape, seed=9)
    return list(torch.autograd.grad((out * weight).sum(), inputs))


SIZES = [(1, 1), (2, 5), (7, 7), (8, 8), (8, 9), (9, 7), (3, 20), (16, 24), (17, 15), (25, 1)]


def test_global_attention_sees_everything() -> None:
    q, k, v = qkv(3, 5)
    naive = over_keys(q, k, v, torch.ones(15, 15, dtype=torch.bool))
    torch.testing.assert_close(global_attention(q, k, v), naive)


@pytest.mark.parametrize("written_out", [True, False])
@pytest.mark.parametrize("window", [1, 3, 7, 11])
@pytest.mark.parametrize(("h", "w"), SIZES)
def test_neighbourhood_is_the_window_moved_inside(
    h: int, w: int, window: int, written_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lavps_cli.models.attention.is_cheaper", lambda _: written_out)
    q, k, v = inputs = [x.requires_grad_() for x in qkv(h, w)]
    out = neighbourhood_attention(q, k, v, window)
    naive = over_keys(q, k, v, pairs(nearby(h, window), nearby(w, window)))
    torch.testing.assert_close(out, naive)
    for a, b in zip(gradients(out, inputs), gradients(naive, inputs), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("window", "shift"), [(1, 0), (3, 0), (3, 1), (4, 2), (7, 0), (7, 3)])
@pytest.mark.parametrize(("h", "w"), SIZES)
def test_shifted_window_is_the_window_of_the_moved_grid(
    h: int, w: int, window: int, shift: int
) -> None:
    q, k, v = inputs = [x.requires_grad_() for x in qkv(h, w)]
    out = shifted_window_attention(q, k, v, window, shift)
    seen = pairs(same_window(h, window, shift), same_window(w, window, shift))
    naive = over_keys(q, k, v, seen)
    torch.testing.assert_close(out, naive)
    for a, b in zip(gradients(out, inputs), gradients(naive, inputs), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("h", "w"), [(4, 4), (3, 6), (8, 2)])
def test_the_longer_side_spans_minus_one_to_one(h: int, w: int) -> None:
    positions = axial_positions(h, w, None, CPU)
    assert positions.shape == (h, w, 2)
    pitch = 2 / max(h, w)
    side = 0 if h >= w else 1
    assert positions[..., side].amax().item() == pytest.approx(1 - pitch / 2)
    assert positions[..., side].amin().item() == pytest.approx(-1 + pitch / 2)
    torch.testing.assert_close(positions.mean((0, 1)), torch.zeros(2))


def test_a_fixed_extent_makes_the_pitch_independent_of_the_size() -> None:
    for h, w in ((4, 4), (16, 9)):
        positions = axial_positions(h, w, 8, CPU)
        torch.testing.assert_close(positions[:, 0, 0].diff(), torch.full((h - 1,), 0.25))
        torch.testing.assert_close(positions[0, :, 1].diff(), torch.full((w - 1,), 0.25))


def test_rotation_keeps_lengths_and_composes() -> None:
    x = random(1, 2, 2, 3, 8)
    angles = random(2, 2, 2, 3, 3, seed=4)

    def turned(x: Tensor, angle: Tensor) -> Tensor:
        return rotate(x, angle.cos(), angle.sin())

    torch.testing.assert_close(turned(x, angles[0]).norm(dim=-1), x.norm(dim=-1))
    twice = turned(turned(x, angles[0]), angles[1])
    torch.testing.assert_close(twice, turned(x, angles.sum(0)))
    assert torch.equal(turned(x, angles[0])[..., 6:], x[..., 6:])
    assert not torch.allclose(turned(x, angles[0])[..., :6], x[..., :6])


def test_rotation_turns_a_feature_into_the_one_half_way_on() -> None:
    angle = random(1, 1, 1, 2, seed=4)
    x = torch.zeros(1, 1, 1, 1, 5, dtype=torch.float64)
    x[..., 0] = 1
    first = angle[..., 0].item()
    expected = torch.tensor([math.cos(first), 0, math.sin(first), 0, 0], dtype=torch.float64)
    torch.testing.assert_close(rotate(x, angle.cos(), angle.sin()).flatten(), expected)
