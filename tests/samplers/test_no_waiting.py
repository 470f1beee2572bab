"""The loop never waits for the device: it runs on a device that has no values to wait for."""

import pytest
import torch

from lavps_cli.core.gaussian import DiagonalGaussian
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.schedule import Flow
from lavps_cli.core.types import Image, Time
from lavps_cli.core.variational import Context, Start
from lavps_cli.operators.inpainting import Inpainting
from lavps_cli.samplers import lavps as module
from lavps_cli.samplers.lavps import LavpsOptions, lavps

META = torch.device("meta")


class Halving:
    """A prior without tensors of its own."""

    schedule = Flow()

    def __call__(self, xt: Image, t: Time) -> Image:
        return 0.5 * xt


def predicting(c: Context) -> DiagonalGaussian:
    return DiagonalGaussian(c.bridge.mu + 0.1, 0.9 * c.bridge.rho)


def run(options: LavpsOptions, predicted: bool) -> Image:
    likelihood = Likelihood(
        torch.zeros(2, 3, 4, 4, device=META), Inpainting(torch.ones(1, 4, 4, device=META)), 0.1
    )
    return lavps(
        Halving(), likelihood, options, shape=(2, 3, 4, 4), noise=Noise([0, 1], META),
        inference=predicting if predicted else None,
    )  # fmt: skip


def test_a_value_cannot_be_read_there() -> None:
    with pytest.raises((RuntimeError, NotImplementedError)):
        run(LavpsOptions(num_steps=4), predicted=False)  # At its end, whether all are numbers.


@pytest.mark.parametrize("renoise", ["forward", "bridge"])
@pytest.mark.parametrize("num_denoise", [1, 2])
def test_nothing_is_read_before_the_end(
    monkeypatch: pytest.MonkeyPatch, renoise: str, num_denoise: int
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(module, "check_steps", lambda finite, first: asked.append(len(finite)))
    options = LavpsOptions(
        num_steps=7, grad_steps_start=2, renoise=renoise, num_denoise=num_denoise
    )
    assert run(options, predicted=False).shape == (2, 3, 4, 4)
    assert asked == [5]


@pytest.mark.parametrize("answer", [[True, True], [False, False], [True, False]])
@pytest.mark.parametrize("grad_steps_end", [0, 2])
def test_the_safeguards_answer_alone_is_read(
    monkeypatch: pytest.MonkeyPatch, answer: list[bool], grad_steps_end: int
) -> None:
    read: list[bool] = []

    def told(start: Start, options: LavpsOptions) -> list[bool] | None:
        read.append(start.accepted is not None)
        return answer if read[-1] else None

    monkeypatch.setattr(module, "told", told)
    monkeypatch.setattr(module, "check_steps", lambda finite, first: None)
    run(LavpsOptions(num_steps=7, switch_ratio=0.4, grad_steps_end=grad_steps_end), predicted=True)
    assert read == [False, False, True, True, True]


def test_no_answer_is_read_where_the_same_steps_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "check_steps", lambda finite, first: None)
    options = LavpsOptions(num_steps=7, switch_ratio=0.4, grad_steps_start=1, grad_steps_end=3)
    assert run(options, predicted=True).shape == (2, 3, 4, 4)
