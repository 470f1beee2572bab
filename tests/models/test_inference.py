import pytest
import torch

from lavps_cli.core.likelihood import observe
from lavps_cli.core.noise import Noise
from lavps_cli.core.schedule import SCHEDULES
from lavps_cli.core.variational import Context, context
from lavps_cli.models.analytic import GaussianPrior
from lavps_cli.models.hdit import HDiTConfig
from lavps_cli.models.hdit_layers import LevelConfig
from lavps_cli.models.inference import (
    COND_WIDTH,
    AmortisedInference,
    InferenceNetwork,
    closed_form_step,
)
from lavps_cli.operators.blur import Blur
from lavps_cli.operators.inpainting import Inpainting, pixel_mask
from lavps_cli.operators.kernels import box_kernel
from lavps_cli.operators.super_resolution import SuperResolution

CONFIG = HDiTConfig(
    levels=(
        LevelConfig(depth=1, width=32, d_ff=32, d_head=16, window=3),
        LevelConfig(depth=1, width=32, d_ff=32, d_head=16, window=3),
    ),
    patch_size=2,
    stem="overlap",
    mapping_width=32,
    mapping_d_ff=32,
    mapping_depth=1,
    in_channels=9,
    out_channels=9,
    mapping_cond_dim=COND_WIDTH,
    rope_extent=8,
)
OPERATORS = [SuperResolution(2), Blur(box_kernel(5), "circular"), Blur(box_kernel(3), "reflect")]


def draw_context(schedule: str, A: object, size: int = 16, b: int = 2, k: int = 10) -> Context:
    noise = Noise(range(b), torch.device("cpu"))
    x = noise.normal((3, size, size)).clamp(-1, 1)
    likelihood = observe(A, x, 0.1, noise)
    denoiser = GaussianPrior(torch.zeros(3, size, size), 0.25, SCHEDULES[schedule])
    s, t = (torch.tensor(i / 20, dtype=torch.float64) for i in (k - 1, k))
    return context(denoiser, noise.normal_like(x), noise.normal_like(x), s, t, likelihood)


def trained_like(network: InferenceNetwork, seed: int = 0) -> InferenceNetwork:
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("A", OPERATORS)
def test_untrained_model_is_the_bridge_exactly(schedule: str, A: object) -> None:
    c = draw_context(schedule, A)
    q = AmortisedInference(InferenceNetwork(CONFIG), SCHEDULES[schedule])(c)
    assert torch.equal(q.mu, c.bridge.mu)
    assert torch.equal(q.rho, c.bridge.rho)


def test_variance_stays_positive_whatever_the_weights() -> None:
    c = draw_context("vp", SuperResolution(2))
    for seed in range(5):
        q = AmortisedInference(trained_like(InferenceNetwork(CONFIG), seed), SCHEDULES["vp"])(c)
        assert (q.rho > 0).all()
        assert not torch.equal(q.mu, c.bridge.mu)


@pytest.mark.parametrize("size", [16, 18, 23])
def test_prediction_does_not_depend_on_the_batch(size: int) -> None:
    masks = torch.stack([
        pixel_mask(size, size, torch.Generator().manual_seed(i)) for i in range(3)
    ])  # fmt: skip
    model = AmortisedInference(trained_like(InferenceNetwork(CONFIG)), SCHEDULES["vp"])
    c = draw_context("vp", Inpainting(masks), size, b=3)
    together = model(c)
    for i in range(3):
        one = Context(
            c.x0[i : i + 1],
            c.xt[i : i + 1],
            c.s,
            c.t,
            type(c.likelihood)(c.likelihood.y[i : i + 1], Inpainting(masks[i : i + 1]), 0.1),
            type(c.bridge)(c.bridge.mu[i : i + 1], c.bridge.rho[i : i + 1]),
        )
        alone = model(one)
        torch.testing.assert_close(alone.mu[0], together.mu[i], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(alone.rho[0], together.rho[i], atol=1e-5, rtol=1e-4)


def test_tiles_of_the_pictures_size_change_nothing() -> None:
    network = trained_like(InferenceNetwork(CONFIG))
    c = draw_context("vp", SuperResolution(2), 16)
    whole = AmortisedInference(network, SCHEDULES["vp"])(c)
    tiled = AmortisedInference(network, SCHEDULES["vp"], tile=16, overlap=4)(c)
    assert torch.equal(whole.mu, tiled.mu)


def test_one_time_a_picture_equals_one_time_for_all() -> None:
    model = AmortisedInference(trained_like(InferenceNetwork(CONFIG)), SCHEDULES["vp"])
    c = draw_context("vp", SuperResolution(2))
    each = Context(c.x0, c.xt, c.s.expand(2), c.t.expand(2), c.likelihood, c.bridge)
    torch.testing.assert_close(model(c).mu, model(each).mu)


@pytest.mark.parametrize("A", [SuperResolution(2), Inpainting(torch.ones(1, 16, 16))])
def test_closed_form_step_fits_the_observation_better(A: object) -> None:
    c = draw_context("vp", A)
    step = closed_form_step(c, SCHEDULES["vp"])
    moved = c.x0 + step * c.bridge.rho.sqrt() / SCHEDULES["vp"].alpha(c.s).float()
    before = (c.likelihood.y - A(c.x0)).square().sum()
    assert (c.likelihood.y - A(moved)).square().sum() < 0.5 * before


def test_closed_form_step_vanishes_where_the_observation_is_met() -> None:
    c = draw_context("vp", SuperResolution(2))
    met = type(c.likelihood)(SuperResolution(2)(c.x0), SuperResolution(2), 0.1)
    c = Context(c.x0, c.xt, c.s, c.t, met, c.bridge)
    assert torch.equal(closed_form_step(c, SCHEDULES["vp"]), torch.zeros_like(c.x0))
