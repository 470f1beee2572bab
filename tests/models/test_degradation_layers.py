"""Operator-aware layers against a naive reference, and what they must leave as it was."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.schedule import SCHEDULES
from lavps_cli.core.variational import Context, context
from lavps_cli.errors import UsageError, WeightsError
from lavps_cli.models.analytic import GaussianPrior
from lavps_cli.models.attention import (
    global_attention,
    neighbourhood_attention,
    shifted_window_attention,
)
from lavps_cli.models.degradation_layers import FeatureDegradation, Seen
from lavps_cli.models.hdit import HDiT, HDiTConfig
from lavps_cli.models.hdit_layers import LevelConfig
from lavps_cli.models.inference import COND_WIDTH, AmortisedInference, InferenceNetwork
from lavps_cli.operators.bicubic import BicubicDownsampling
from lavps_cli.operators.blur import Blur
from lavps_cli.operators.denoising import Denoising
from lavps_cli.operators.inpainting import Inpainting
from lavps_cli.operators.super_resolution import SuperResolution
from lavps_cli.weights.hdit import network_config

B, H, W = 3, 8, 16
LEVEL = LevelConfig(depth=2, width=16, d_ff=16, d_head=8, window=3)
CONFIG = HDiTConfig(
    levels=(LEVEL, LEVEL), patch_size=2, mapping_width=16, mapping_d_ff=16, rope_extent=8,
    in_channels=9, out_channels=9, mapping_cond_dim=COND_WIDTH, joint=2,
)  # fmt: skip


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def kernels() -> Tensor:
    weights = draw(B, 3, 5, seed=1).abs()
    return weights / weights.sum((1, 2), keepdim=True)


def of_picture(A: LinearOperator, i: int) -> LinearOperator:
    """Return the operator of one picture of the batch."""
    if isinstance(A, Inpainting):
        return Inpainting(A.mask[i])
    return replace(A, kernel=A.kernel[i]) if isinstance(A, Blur) else A


OPERATORS: dict[str, LinearOperator] = {
    "sr": SuperResolution(2),
    "bicubic": BicubicDownsampling(2),
    "masks": Inpainting((draw(B, 1, H, W) > 0).float()),
    "circular": Blur(kernels(), "circular"),
    "reflect": Blur(kernels(), "reflect"),
    "valid": Blur(kernels(), "valid"),
    "denoise": Denoising(),
}


def seen(A: LinearOperator) -> Seen:
    return Seen(A(draw(B, 3, H, W, seed=3)), A, (H, W))


def naive(layer: FeatureDegradation, x: Tensor, what: Seen) -> Tensor:
    """The same by loops: pictures, feature images, channels, entries of the measurement."""
    b, h, w, _ = x.shape
    p, k = layer.pixels, layer.images
    out = torch.zeros_like(x)
    for i in range(b):
        A = of_picture(what.A, i)
        features = torch.zeros(k, 3, h * p, w * p)
        for row in range(h):
            for col in range(w):
                patch = layer.unpatch(x[i, row, col]).view(p, p, k, 3).permute(2, 3, 0, 1)
                features[:, :, row * p : row * p + p, col * p : col * p + p] = patch
        measured = [what.y[i]] + [A(features[j]) for j in range(k)]
        mixed = [torch.zeros_like(measured[0]) for _ in range(k)]
        for entry in range(measured[0].numel()):
            column = torch.stack([m.flatten()[entry] for m in measured])
            linear = layer.deg_linear
            for j, value in enumerate(F.gelu(linear.weight @ column + linear.bias)):
                mixed[j].view(-1)[entry] = value
        back = torch.stack([getattr(A, "pinv", A.adjoint)(m) for m in mixed])
        for row in range(h):
            for col in range(w):
                patch = back[:, :, row * p : row * p + p, col * p : col * p + p]
                out[i, row, col] = layer.patch(patch.permute(2, 3, 0, 1).flatten())
    return out


@pytest.mark.parametrize("width", [6, 24])
@pytest.mark.parametrize("name", OPERATORS)
def test_it_is_the_naive_reference(name: str, width: int) -> None:
    layer = FeatureDegradation(width, 2, 2)
    assert sum(p.numel() for p in layer.parameters()) == 8 + (2 * 24 * 6 if width == 6 else 0)
    x = draw(B, H // 2, W // 2, width, seed=4)
    what = seen(OPERATORS[name])
    with torch.no_grad():
        torch.testing.assert_close(layer(x, what), naive(layer, x, what), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", OPERATORS)
def test_no_picture_depends_on_another(name: str) -> None:
    layer = FeatureDegradation(6, 2, 2)
    x, what = draw(B, H // 2, W // 2, 6, seed=4), seen(OPERATORS[name])
    with torch.no_grad():
        together = layer(x, what)
        for i in range(B):
            alone = Seen(what.y[i : i + 1], of_picture(what.A, i), what.size)
            torch.testing.assert_close(
                layer(x[i : i + 1], alone), together[i : i + 1], atol=1e-5, rtol=1e-4
            )


def test_a_picture_smaller_than_its_tokens_is_degraded_at_its_own_size() -> None:
    layer = FeatureDegradation(6, 2, 2)
    x = draw(1, 4, 8, 6)
    mask = torch.zeros(1, 7, 15)
    what = Seen(torch.zeros(1, 3, 7, 15), Inpainting(mask), (7, 15))
    assert layer(x, what).shape == x.shape
    assert layer(x, what).abs().max() == 0


@pytest.mark.parametrize("kind", ["global", "neighbourhood", "shifted_window"])
@pytest.mark.parametrize("side", [3, 11])
def test_joint_attention_is_softmax_over_both_sets(kind: str, side: int) -> None:
    q, k, v, k2, v2 = (0.3 * draw(2, side, side + 1, 2, 8, seed=i).double() for i in range(5))
    window, shift = (3, 1) if kind == "shifted_window" else (5, 0)

    def attend(k: Tensor, v: Tensor, joint: Any = None) -> Tensor:
        if kind == "global":
            return global_attention(q, k, v, joint)
        if kind == "neighbourhood":
            return neighbourhood_attention(q, k, v, window, joint)
        return shifted_window_attention(q, k, v, window, shift, joint)

    def weight(k: Tensor) -> Tensor:
        """Sum of exponentials: a value of 1 in a set whose other set cannot be seen."""
        far = torch.full_like(k, 0.0)
        ones = torch.ones_like(v)
        share = attend(k, ones, (far, torch.zeros_like(v)))
        return share / (1 - share)  # in units of the number of keys that are seen

    a, b = weight(k), weight(k2)
    expected = (a * attend(k, v) + b * attend(k2, v2)) / (a + b)
    torch.testing.assert_close(attend(k, v, (k2, v2)), expected, atol=1e-5, rtol=1e-4)


def contexts(name: str) -> Context:
    A = OPERATORS[name]
    schedule = SCHEDULES["flow"]
    x = draw(B, 3, H, W, seed=7)
    t = torch.full((B,), 0.5, dtype=torch.float64)
    prior = GaussianPrior(torch.zeros(3, H, W), 0.25, schedule)
    return context(prior, 0.5 * x, x, t - 0.1, t, Likelihood(A(x), A, 0.05))


@pytest.mark.parametrize("name", OPERATORS)
def test_untrained_it_predicts_the_bridge(name: str) -> None:
    model = AmortisedInference(InferenceNetwork(CONFIG), SCHEDULES["flow"])
    c = contexts(name)
    q = model(c)
    torch.testing.assert_close(q.mu, c.bridge.mu)
    torch.testing.assert_close(q.rho, c.bridge.rho)


def _is_joint(name: str) -> bool:
    return any(part in name for part in ("degradation", "jnorm", "jk_proj", "jv_proj"))


def test_every_parameter_learns() -> None:
    network = InferenceNetwork(CONFIG)
    for name, parameter in network.named_parameters():
        if "out" in name or "down_proj" in name or "linear" in name or "gain" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model = AmortisedInference(network, SCHEDULES["flow"])
    q = model(contexts("masks"))
    (q.mu.square().sum() + q.rho.log().square().sum()).backward()
    joint = {n: p for n, p in network.named_parameters() if _is_joint(n)}
    assert len(joint) == 7 * 6
    for name, parameter in joint.items():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_without_an_observation_the_network_serves_too() -> None:
    config = replace(CONFIG, in_channels=3, out_channels=3, mapping_cond_dim=0)
    network = HDiT(config)
    torch.nn.init.normal_(network.patch_out.proj.weight)
    x, noise = draw(1, 3, H, W), torch.zeros(1)
    with torch.no_grad():
        assert network(x, noise).isfinite().all()


def test_without_feature_images_nothing_is_added() -> None:
    names = set(HDiT(replace(CONFIG, joint=0)).state_dict())
    more = set(HDiT(CONFIG).state_dict())
    assert names < more
    assert all(_is_joint(name) for name in more - names)


def test_windows_are_refused_unless_the_network_is_local() -> None:
    level = replace(LEVEL, attention="global")
    network = InferenceNetwork(replace(CONFIG, levels=(level, level)))
    model = AmortisedInference(network, SCHEDULES["flow"], tile=4, overlap=0)
    with pytest.raises(UsageError, match="takes no windows"):
        model(contexts("sr"))


def test_a_size_that_nobody_has_is_refused() -> None:
    raw = {"levels": [{"depth": 2, "width": 64, "d_ff": 64}], "joint": 1 << 16, "patch_size": 64}
    with pytest.raises(WeightsError, match="parameters"):
        network_config(raw)


def test_it_learns_what_palette_cannot_see() -> None:
    """Masks per picture, the target is the mean of y over known pixels: the loss falls."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch.Generator().manual_seed(0).get_state())
        network = HDiT(replace(CONFIG, in_channels=3, out_channels=3, mapping_cond_dim=0))
    adam = torch.optim.AdamW(network.parameters(), lr=5e-3)
    losses = []
    for step in range(120):
        x = draw(8, 3, 1, 1, seed=100 + step).expand(8, 3, H, W)
        A = Inpainting((draw(8, 1, H, W, seed=500 + step) > 0).float())
        out = network(torch.ones(8, 3, H, W), torch.zeros(8), seen=Seen(A(x), A, (H, W)))
        loss = (out - x).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])
