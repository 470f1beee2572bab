import torch

from lavps_cli.operators.clipping import Clipping, clipping_of


def scene() -> torch.Tensor:
    x = torch.rand(2, 3, 6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return 2 * x - 1


def observed(gain: float = 2.0) -> tuple[torch.Tensor, torch.Tensor, Clipping]:
    y = (gain * scene()).clamp(-1, 1)
    return scene(), y, clipping_of(gain, y)


def test_the_scene_explains_its_own_observation() -> None:
    x, y, A = observed()
    torch.testing.assert_close(A(x), y)


def test_whatever_lies_beyond_an_end_explains_it() -> None:
    x, y, A = observed()
    beyond = torch.where(y.abs() == 1, x + 0.3 * y, x)
    torch.testing.assert_close(A(beyond), y)


def test_what_contradicts_the_observation_is_led_back() -> None:
    _, y, A = observed()
    x = torch.full_like(y, 0.9).requires_grad_()  # Too bright wherever white was not reached.
    (A(x) - y).square().sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad > 0, y < 1)
    assert (x.grad[y == 1] == 0).all()


def test_a_residual_asks_for_the_step_to_the_nearest_explanation() -> None:
    x, y, A = observed()
    wrong = x + 0.2
    right = wrong + A.ridge(y - A(wrong), 0.0)
    torch.testing.assert_close(A(right), y)
