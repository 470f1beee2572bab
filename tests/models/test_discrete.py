"""Denoisers on the discrete times of DDPM, with networks that know the answer."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from lavps_cli.core.schedule import SCHEDULES, noise_ratio, time_at_ratio
from lavps_cli.errors import UsageError
from lavps_cli.models.adm import Adm, AdmConfig
from lavps_cli.models.analytic import GaussianPrior
from lavps_cli.models.discrete import Betas, DiscreteDenoiser

BETAS = Betas(count=200, end=0.1)
KEPT = torch.cumprod(1 - BETAS.values(), 0)
MEAN, VARIANCE = 0.2, 0.25


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass
class Output:
    sample: Tensor


class Exact(nn.Module):
    """What a network of a prediction type learns on a Gaussian; it needs its step to be right."""

    def __init__(self, prediction: str, *, wrapped: bool = False) -> None:
        super().__init__()
        self.prediction, self.wrapped = prediction, wrapped

    def forward(self, x: Tensor, step: Tensor) -> Tensor | Output:
        assert torch.allclose(step, step.round(), atol=1e-6)
        kept = KEPT[step.round().long()][:, None, None, None]
        a, s = kept.sqrt(), (1 - kept).sqrt()
        x0 = (s**2 * MEAN + a * VARIANCE * x) / (s**2 + a**2 * VARIANCE)
        epsilon = (x - a * x0) / s
        raw = {"sample": x0, "epsilon": epsilon, "v_prediction": a * epsilon - s * x0}
        out = torch.cat([raw[self.prediction], torch.zeros_like(x)], 1)  # With learnt variances.
        return Output(out) if self.wrapped else out


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_every_prediction_is_the_same_denoiser(name: str, prediction: str) -> None:
    schedule = SCHEDULES[name]
    network = Exact(prediction, wrapped=prediction == "epsilon")
    denoiser = DiscreteDenoiser(network, schedule, BETAS.log_ratios(), prediction)  # type: ignore[arg-type]
    steps = torch.tensor([0, 40, 150])
    t = time_at_ratio(schedule, ((1 - KEPT) / KEPT).sqrt()[steps])
    exact = GaussianPrior(torch.full((3, 4, 4), MEAN).double(), VARIANCE, schedule)
    xt = random(3, 3, 4, 4)
    assert torch.allclose(denoiser(xt, t), exact(xt, t), atol=1e-6)
    for i in range(3):  # One time for the whole batch, too.
        assert torch.allclose(denoiser(xt, t[i]), exact(xt, t[i]), atol=1e-6)


class Recording(nn.Module):
    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        self.step, self.x = step, x
        return torch.zeros_like(x)


def test_steps_between_steps_and_beyond_the_table() -> None:
    schedule, network = SCHEDULES["flow"], Recording()
    denoiser = DiscreteDenoiser(network, schedule, BETAS.log_ratios())
    table = BETAS.log_ratios()
    between = (0.25 * table[7] + 0.75 * table[8]).exp()
    for ratio, step in ((between, 7.75), (torch.tensor(1e-9), 0.0), (torch.tensor(1e9), 199.0)):
        t = time_at_ratio(schedule, ratio.double())
        denoiser(random(2, 3, 4, 4), t)
        assert torch.allclose(network.step, torch.full((2,), step).double(), atol=1e-4)
    at_the_end = denoiser(random(2, 3, 4, 4), torch.tensor(1.0).double())
    assert at_the_end.isfinite().all()


def test_the_network_gets_pictures_of_unit_variance() -> None:
    schedule, network = SCHEDULES["flow"], Recording()
    denoiser = DiscreteDenoiser(network, schedule, BETAS.log_ratios())
    t = torch.tensor(0.3).double()
    clean, w = random(4, 3, 64, 64, seed=1), random(4, 3, 64, 64, seed=2)
    denoiser(schedule.alpha(t) * clean + schedule.sigma(t) * w, t)
    assert abs(network.x.std() - 1) < 0.01


def test_clipping_and_gradients() -> None:
    schedule = SCHEDULES["vp"]
    plain = DiscreteDenoiser(Recording(), schedule, BETAS.log_ratios())
    t, xt = torch.tensor(0.5).double(), random(1, 3, 4, 4).requires_grad_()
    (slope,) = torch.autograd.grad(plain(xt, t).sum(), xt)
    ratio = noise_ratio(schedule, t)
    expected = torch.rsqrt(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2) * (1 + ratio**2).sqrt()
    assert torch.allclose(slope, expected.expand_as(slope))
    clipped = replace(plain, clip=0.5)(xt, t)
    assert clipped.abs().max() <= 0.5
    assert torch.equal(clipped, plain(xt, t).clamp(-0.5, 0.5))


def test_betas_of_every_kind_rise_and_nonsense_is_refused() -> None:
    for betas in (
        Betas(),
        Betas(kind="scaled_linear", start=1e-3),
        Betas(kind="squaredcos_cap_v2"),
        Betas(kind="trained", count=3, trained=(0.1, 0.2, 0.3)),
    ):
        table = betas.log_ratios()
        assert len(table) == betas.count
        assert (table.diff() > 0).all()
        assert table.isfinite().all()
    for wrong in (
        {"count": 1}, {"count": 10**9}, {"start": 0.0}, {"end": 1.0},
        {"kind": "trained", "count": 2, "trained": (0.1,)},
    ):  # fmt: skip
        with pytest.raises(UsageError):
            Betas(**wrong)  # type: ignore[arg-type]


ADM = AdmConfig(
    model_channels=32, widths=(32, 64), num_res_blocks=1, attention=(False, True), num_heads=2,
    num_classes=3,
)  # fmt: skip


@pytest.mark.parametrize(
    "changes", [{}, {"updown": False, "scale_shift": False, "new_order": True}]
)
def test_adm_treats_each_picture_by_itself(changes: dict[str, bool]) -> None:
    network = Adm(replace(ADM, **changes)).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for i, w in enumerate(network.parameters()):
            w.add_(0.1 * random(*w.shape, seed=i))
    x, step, labels = (
        random(3, 3, 8, 8),
        torch.tensor([3.0, 500.5, 999.0]).double(),
        torch.arange(3),
    )
    out = network(x, step, labels)
    assert out.shape == (3, 6, 8, 8)
    for i in range(3):
        alone = network(x[i : i + 1], step[i : i + 1], labels[i : i + 1])
        assert torch.allclose(alone, out[i : i + 1], atol=1e-9)
    for other in (network(x, step + 1, labels), network(x, step, labels.flip(0))):
        assert (other - out).abs().max() > 1e-3


def test_untrained_adm_returns_zero() -> None:
    out = Adm(ADM)(random(1, 3, 8, 8).float(), torch.tensor([5.0]), torch.tensor([0]))
    assert torch.equal(out, torch.zeros(1, 6, 8, 8))


@pytest.mark.parametrize(
    "changes",
    [{"widths": (33, 64)}, {"widths": (32,)}, {"num_heads": 7}, {"widths": (), "attention": ()}],
)
def test_shapes_that_are_none(changes: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        replace(ADM, **changes)  # type: ignore[arg-type]
