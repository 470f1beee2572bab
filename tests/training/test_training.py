import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lavps_cli.core.gaussian import DiagonalGaussian
from lavps_cli.core.schedule import SCHEDULES
from lavps_cli.core.types import Image
from lavps_cli.core.variational import Context
from lavps_cli.errors import LavpsError
from lavps_cli.models.analytic import GaussianPrior
from lavps_cli.models.hdit import HDiT, HDiTConfig, LevelConfig
from lavps_cli.operators.inpainting import Inpainting
from lavps_cli.training.amortisation import gain_over_bridge, inference_loss
from lavps_cli.training.contexts import Trajectories
from lavps_cli.training.denoising import denoising_loss
from lavps_cli.training.loop import TrainOptions, fit, rate

TINY = HDiTConfig(
    levels=(LevelConfig(depth=1, width=16, d_ff=16, d_head=8, window=3),),
    patch_size=2,
    mapping_width=16,
    mapping_d_ff=16,
    mapping_depth=1,
    rope_extent=8,
)


def pictures(n: int, seed: int) -> Image:
    """Smooth pictures: a constant plus a gradient."""
    generator = torch.Generator().manual_seed(seed)
    level, slope = torch.rand(2, n, 3, 1, 1, generator=generator) - 0.5
    return (level + slope * torch.linspace(-1, 1, 8)).expand(n, 3, 8, 8)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_training_lowers_the_denoising_loss(tmp_path: Path, optimizer: str) -> None:
    network = HDiT(TINY)
    generator = torch.Generator().manual_seed(0)
    options = TrainOptions(num_steps=60, warmup=5, lr=5e-3, log_every=10, optimizer=optimizer)
    fit(network, lambda i: denoising_loss(network, pictures(8, i), generator), options, tmp_path)
    losses = [
        json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]
    assert len(losses) == 6
    assert losses[-1] < 0.8 * losses[0]


def test_untrained_loss_is_the_targets_variance() -> None:
    """The weights make the target of unit variance for data of deviation 0.5, at every level."""
    network = HDiT(TINY)
    generator = torch.Generator().manual_seed(0)
    x = 0.5 * torch.randn(512, 3, 8, 8, generator=generator)
    loss, _ = denoising_loss(network, x, generator)
    assert abs(loss.item() - 1) < 0.05


def test_checkpoint_is_the_returned_average(tmp_path: Path) -> None:
    network = HDiT(TINY)
    generator = torch.Generator().manual_seed(0)
    options = TrainOptions(num_steps=7, save_every=3)
    average = fit(
        network, lambda i: denoising_loss(network, pictures(2, i), generator), options, tmp_path
    )
    saved = load_file(tmp_path / "ema.safetensors")
    assert saved.keys() == average.state_dict().keys()
    assert all(torch.equal(saved[name], value) for name, value in average.state_dict().items())
    assert not list(tmp_path.glob(".*"))


def test_a_gradient_that_is_not_a_number_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    layer = nn.Linear(2, 2)

    def loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        return layer(torch.full((1, 2), float("nan") if step == 4 else 1.0)).sum(), {}

    with pytest.raises(LavpsError, match="step 4"):
        fit(layer, loss, TrainOptions(num_steps=9, save_every=2, optimizer="adamw"), tmp_path)
    assert all(value.isfinite().all() for value in load_file(tmp_path / "ema.safetensors").values())


def test_rate_rises_then_falls_to_zero() -> None:
    options = TrainOptions(num_steps=1000, warmup=10, lr=1.0)
    assert rate(0, 0.0, options) == pytest.approx(0.1)
    assert rate(100, 0.1, options) == 1.0
    assert rate(999, 0.999, options) < 0.01


def problem(n: int) -> tuple[Image, Inpainting]:
    rng = np.random.default_rng(n)
    masks = torch.from_numpy(rng.integers(0, 2, (n, 1, 8, 8)).astype(np.float32))
    return pictures(n, 1), Inpainting(masks)


def trajectories(seed: int = 0, life: int = 24) -> Trajectories:
    return Trajectories(
        GaussianPrior(torch.zeros(3, 8, 8), 0.25, SCHEDULES["vp"]),
        problem,
        sigma_y=0.1,
        batch=6,
        generator=torch.Generator().manual_seed(seed),
        num_steps=(5, 12),
        life=life,
    )


def bridge_of(c: Context) -> tuple[DiagonalGaussian, Image]:
    return c.bridge, torch.zeros_like(c.x0)


def test_the_bridge_gains_nothing_over_itself() -> None:
    assert gain_over_bridge(bridge_of, trajectories()) == {"ratio": 1.0, "accepted": 1.0}


def test_trajectories_walk_down_and_begin_again() -> None:
    run = trajectories(life=1000)
    fell = began = 0
    previous = run.draw()
    for _ in range(30):
        run.advance(previous, *bridge_of(previous))
        c = run.draw()
        assert (c.s < c.t).all()
        assert (c.s > 0).all()
        fell += int((c.t < previous.t).sum())
        began += int((c.t > previous.t).sum())
        previous = c
    assert fell > 3 * began > 0


def test_a_learnt_gain_lowers_the_objective() -> None:
    """One parameter, the pull towards known pixels: Algorithm 1 finds that pulling helps."""
    gain = nn.Parameter(torch.zeros(()))

    def predict(c: Context) -> tuple[DiagonalGaussian, Image]:
        pull = c.likelihood.A.adjoint(c.likelihood.y - c.likelihood.A(c.x0))
        mu = c.bridge.mu + gain * c.bridge.rho.sqrt() * pull
        return DiagonalGaussian(mu, c.bridge.rho), torch.zeros_like(mu)

    run = trajectories()
    adam = torch.optim.Adam([gain], lr=0.05)
    for _ in range(40):
        loss, _ = inference_loss(predict, run)
        gain.grad = torch.autograd.grad(loss, gain)[0]
        adam.step()
    assert gain.item() > 0.2
    ratios = [gain_over_bridge(predict, run)["ratio"] for _ in range(20)]
    assert sum(ratios) / 20 < 0.95


def test_what_is_not_measured_follows_the_clean_picture() -> None:
    """However wrong the predicted shift: holes take the bridge of the clean picture."""
    after = []
    for wrong in (0.0, 5.0):
        run = trajectories(life=1000)
        c = run.draw()
        shift = torch.full_like(c.x0, wrong)
        hole = 1 - c.likelihood.A.mask
        run.advance(c, DiagonalGaussian(c.bridge.mu + hole * shift, c.bridge.rho), shift)
        after.append(run.draw().xt * hole)
    torch.testing.assert_close(after[0], after[1], atol=1e-3, rtol=0)


def test_shift_in_holes_is_learnt_by_regression() -> None:
    """The best multiple of the shift to the clean picture is that shift itself."""
    share = nn.Parameter(torch.zeros(()))
    run = trajectories()
    for _ in range(5):
        _, numbers = inference_loss(lambda c: (c.bridge, share * run.shift_to_clean(c)), run)
        assert 0.8 < numbers["unmeasured"] <= 1
    with torch.no_grad():
        share.fill_(1.0)
    _, numbers = inference_loss(lambda c: (c.bridge, share * run.shift_to_clean(c)), run)
    assert numbers["unmeasured"] < 1e-6


def test_the_prior_gets_no_gradient() -> None:
    network = HDiT(TINY).requires_grad_(False)
    run = trajectories()
    run.denoiser = type("D", (), {
        "schedule": SCHEDULES["vp"],
        "__call__": lambda self, xt, t: xt + network(xt, t.float().expand(len(xt))),
    })()  # fmt: skip
    shift = nn.Parameter(torch.zeros(()))
    loss, _ = inference_loss(
        lambda c: (DiagonalGaussian(c.bridge.mu + shift, c.bridge.rho), shift + 0 * c.x0), run
    )
    loss.backward()
    assert shift.grad is not None
    assert all(parameter.grad is None for parameter in network.parameters())
