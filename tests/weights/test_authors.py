"""Files of the authors of LAVPS against a reference of their layout that owes nothing to ours."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lavps_cli.core.gaussian import bridge
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.schedule import SCHEDULES, noise_ratio
from lavps_cli.core.variational import Context
from lavps_cli.errors import UsageError, WeightsError
from lavps_cli.models.bridge_residual import BridgeResidual
from lavps_cli.operators.blur import Blur
from lavps_cli.operators.inpainting import Inpainting
from lavps_cli.operators.super_resolution import SuperResolution
from lavps_cli.pipeline.model import open_weights
from lavps_cli.pipeline.requests import Compute
from lavps_cli.samplers.lavps import LavpsOptions, lavps
from lavps_cli.weights.checkpoint import load_denoiser, read_config
from lavps_cli.weights.index import resolve
from lavps_cli.weights.starts import load_starts

sys.path.insert(0, str(Path(__file__).parent))
from hdit_reference import Level, denoised, hdit, random, random_state

CPU, VP = torch.device("cpu"), SCHEDULES["vp"]
FACES = (
    Level("neighborhood", 5, 2, 16, 2),
    Level("neighborhood", 7, 1, 24, 3),
    Level("global", 7, 1, 32, 2),
    Level("global", 7, 1, 16, 2),
)
OBJECTS = (
    Level("neighborhood", 7, 1, 24, 3, images=2),
    Level("neighborhood", 7, 1, 48, 3, images=1),
    Level("global", 7, 2, 32, 2),
)
PLAIN = tuple(replace(level, images=0) for level in OBJECTS)
KERNEL = random(3, 5).abs()
OPERATORS: dict[str, LinearOperator] = {
    "sr": SuperResolution(2),
    "mask": Inpainting((random(2, 1, 32, 32) > 0).float()),
    "blur": Blur(KERNEL / KERNEL.sum(), "reflect"),
}


def wrapped(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the names of their files: all of a block but its operator-aware layer is `attn`."""
    block = re.compile(r"((?:up_levels|down_levels)\.\d+\.\d+|mid_level\.\d+)\.(?!feature_)")
    return {prefix + block.sub(r"\1.attn.", name): w for name, w in state.items()}


def prior_file(
    path: Path, levels: tuple[Level, ...], patch: int, classes: int
) -> dict[str, Tensor]:
    state = random_state(levels, patch=patch, classes=classes)
    table = wrapped("unet.", state) | {
        "logvar_fourier.freqs": random(8),
        "logvar_fourier.phases": random(8),
        "logvar_linear.weight": random(1, 8),
        "logvar_linear.bias": random(1),
    }
    torch.save({"ema": table}, path)
    return state


@pytest.mark.parametrize(
    ("levels", "patch", "classes"),
    [(FACES, 4, 0), (PLAIN, 2, 6)],
    ids=["faces", "objects"],
)
def test_priors(tmp_path: Path, levels: tuple[Level, ...], patch: int, classes: int) -> None:
    state = prior_file(tmp_path / "a.pt", levels, patch, classes)
    folder = resolve(str(tmp_path / "a.pt"))
    t = torch.tensor([0.1, 0.7], dtype=torch.float64)
    r = noise_ratio(VP, t).float()
    side = 16 * patch
    z = random(2, 3, side, side, seed=1) * (0.5 + r)[:, None, None, None]
    for label in (None, 2) if classes else (None,):
        told = label if label is not None or not classes else classes - 1
        expected = denoised(
            lambda x, noise, told=told: hdit(state, levels, patch, x, noise, label=told), z, r, 0.5
        )
        prior = load_denoiser(folder, device=CPU, label=label)
        found = prior(z * VP.alpha(t).float()[:, None, None, None], t)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    if classes:
        with pytest.raises(UsageError, match="5 labels"):
            load_denoiser(folder, device=CPU, label=classes - 1)
    assert read_config(folder)["image_size"] == {4: 256, 2: 64}[patch]


def inference_file(path: Path, joint: bool, classes: int = 0) -> dict[str, Tensor]:
    """What their training saves: the model with its prior beside it, optimizer and loss."""
    state = random_state(OBJECTS if joint else PLAIN, patch=2, inputs=9, outputs=6, classes=classes)
    state["patch_out.proj.weight"] *= 0.3
    state["time_in_proj_s.weight"] = 0.25 * random(16, 16, seed=99)
    table = wrapped("residual_nn.", state)
    table["residual_nn.time_in_proj_t.weight"] = table["residual_nn.time_in_proj.weight"]
    table |= {"epsilon_net.net.unet.patch_in.proj.weight": random(2, 2)}
    torch.save(
        {"epoch": 3, "model_state_dict": table, "optimizer_state_dict": {"state": {}}, "loss": 0.5},
        path,
    )
    return state


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("joint", [False, True], ids=["palette", "invfusion"])
def test_inference_models(tmp_path: Path, joint: bool, name: str) -> None:
    classes = 4 if name == "sr" else 0
    state = inference_file(tmp_path / "epoch_0003.pth", joint, classes)
    model = load_starts(resolve(str(tmp_path / "epoch_0003.pth")), device=CPU)
    assert isinstance(model, BridgeResidual)
    A = OPERATORS[name]
    back = getattr(A, "pinv", lambda y: y)
    x0, xt = random(2, 3, 32, 32, seed=1), random(2, 3, 32, 32, seed=2)
    y = A(x0)
    s, t = (torch.tensor(time, dtype=torch.float64) for time in (0.2, 0.21))
    start = bridge(VP, x0, xt, s, t)
    q = model(Context(x0, xt, s, t, Likelihood(y, A, 0.05), start))
    ratio_t, ratio_s = (noise_ratio(VP, time).float().expand(2) for time in (t, s))
    raw = hdit(
        state,
        OBJECTS if joint else PLAIN,
        2,
        torch.cat([xt / VP.alpha(t).float(), x0, back(y)], 1),
        ratio_t,
        label=classes - 1 if classes else None,
        later=ratio_s,
        y=y,
        A=A,
        back=back,
    )
    mean, log_deviation = raw.chunk(2, 1)
    torch.testing.assert_close(q.mu, start.mu + mean, rtol=0, atol=1e-4)
    torch.testing.assert_close(q.rho.log(), start.rho.log() + 2 * log_deviation, rtol=0, atol=1e-4)
    assert mean.std() > 0.1


def test_a_prior_and_its_inference_model_sample_together(tmp_path: Path) -> None:
    prior_file(tmp_path / "prior.pt", PLAIN, 2, 0)
    inference_file(tmp_path / "epoch_0001.pth", joint=True)
    compute = Compute(
        model=str(tmp_path / "prior.pt"), inference=str(tmp_path / "epoch_0001.pth"), device="cpu"
    )
    weights = open_weights(compute)
    model = weights.model(weights.tiling(32, 32, None, None))
    assert isinstance(model.inference, BridgeResidual)
    assert model.switch_ratio == 0.45
    A = OPERATORS["blur"]
    steps: list[Tensor] = []
    x0 = lavps(
        model.denoiser,
        Likelihood(A(random(1, 3, 32, 32)), A, 0.05),
        LavpsOptions(num_steps=4, switch_ratio=0.25),
        shape=(1, 3, 32, 32),
        noise=Noise([0], CPU),
        inference=model.inference,
        on_step=lambda step: steps.append(step.xt),
    )
    assert x0.isfinite().all()
    assert len(steps) == 2


def test_a_large_picture_is_not_for_operator_aware_layers(tmp_path: Path) -> None:
    inference_file(tmp_path / "epoch_0001.pth", joint=True)
    model = load_starts(resolve(str(tmp_path / "epoch_0001.pth")), device=CPU).tiled(16, 4)
    x0 = random(2, 3, 32, 32)
    s, t = (torch.tensor(time, dtype=torch.float64) for time in (0.2, 0.3))
    A = OPERATORS["sr"]
    c = Context(x0, x0, s, t, Likelihood(A(x0), A, 0.05), bridge(VP, x0, x0, s, t))
    with pytest.raises(UsageError, match="up to 16x16"):
        model(c)


def test_an_inference_model_in_windows_is_itself_in_each(tmp_path: Path) -> None:
    """Without operator-aware layers; one window as large as the picture changes nothing."""
    inference_file(tmp_path / "epoch_0001.pth", joint=False, classes=3)
    model = load_starts(resolve(str(tmp_path / "epoch_0001.pth")), device=CPU, label=1)
    s, t = (torch.tensor(time, dtype=torch.float64) for time in (0.2, 0.3))
    A = SuperResolution(2)
    for w in (32, 48):
        x0 = random(2, 3, 32, w)
        c = Context(x0, x0, s, t, Likelihood(A(x0), A, 0.05), bridge(VP, x0, x0, s, t))
        whole, cut = model(c), model.tiled(32, 8)(c)
        assert cut.mu.shape == x0.shape
        assert torch.equal(whole.mu, cut.mu) == (w == 32)


def test_what_is_neither_is_refused(tmp_path: Path) -> None:
    state = inference_file(tmp_path / "whole.pth", joint=False)
    for name in ("time_in_proj_s.weight", "mid_level.0.self_attn.scale"):
        torch.save(
            {
                "model_state_dict": wrapped(
                    "residual_nn.", {n: state[n] for n in state if n != name}
                )
            },
            tmp_path / "a.pth",
        )
        with pytest.raises(WeightsError, match="has not the tensors of an HDiT"):
            resolve(str(tmp_path / "a.pth"))
    folder = resolve(str(tmp_path / "whole.pth"))
    with pytest.raises(WeightsError, match="'inference', not 'denoiser'"):
        load_denoiser(folder, device=CPU)
