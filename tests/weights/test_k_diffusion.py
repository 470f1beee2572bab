"""Checkpoints of k-diffusion against a reference of their layout that shares nothing with ours."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lavps_cli.core.schedule import noise_ratio
from lavps_cli.weights.checkpoint import load_denoiser
from lavps_cli.weights.index import resolve

sys.path.insert(0, str(Path(__file__).parent))
from hdit_reference import Level, denoised, hdit, random, random_state

CPU = torch.device("cpu")
KINDS = {
    "shifted-window": (Level("shifted-window", 4, 3, 16, 2), Level("shifted-window", 2, 1, 24, 3)),
    "neighborhood": (Level("neighborhood", 5, 1, 16, 1), Level("neighborhood", 3, 2, 24, 3)),
    "global": (Level("global", 7, 1, 16, 2), Level("global", 7, 1, 32, 2)),
    "none": (Level("none", 7, 2, 12, 1), Level("neighborhood", 3, 1, 16, 1)),
}
LAST = Level("global", 7, 1, 32, 4)


def config(levels: tuple[Level, ...], classes: int) -> dict[str, Any]:
    attentions: list[dict[str, Any]] = []
    for level in levels:
        spec: dict[str, Any] = {"type": level.kind, "d_head": level.width // level.heads}
        if level.kind == "neighborhood":
            spec["kernel_size"] = level.window
        elif level.kind == "shifted-window":
            spec["window_size"] = level.window
        attentions.append({"type": "none"} if level.kind == "none" else spec)
    return {
        "model": {
            "type": "image_transformer_v2", "input_channels": 3, "input_size": [16, 16],
            "patch_size": [2, 2], "depths": [level.depth for level in levels],
            "widths": [level.width for level in levels], "self_attns": attentions,
            "mapping_width": 16, "sigma_data": 0.8,
        },
        "dataset": {"num_classes": classes},
    }  # fmt: skip


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_denoiser_is_that_of_the_reference(tmp_path: Path, kind: str, classes: int) -> None:
    levels = (*KINDS[kind], LAST)
    state = random_state(levels, patch=2, classes=classes and classes + 1)
    path = tmp_path / ("a.safetensors" if classes else "a.pth")
    if classes:
        save_file(state, path, {"config": json.dumps(config(levels, classes))})
    else:
        torch.save({"config": config(levels, 0), "model": {}, "model_ema": state}, path)
    folder = resolve(str(path))
    for label in (None, 1) if classes else (None,):
        prior = load_denoiser(folder, device=CPU, label=label)
        told = label if label is not None or not classes else classes
        t = torch.tensor([0.05, 0.8], dtype=torch.float64)
        r = noise_ratio(prior.schedule, t).float()
        z = random(2, 3, 16, 32, seed=1) * (0.8 + r)[:, None, None, None]
        expected = denoised(
            lambda x, noise, told=told: hdit(state, levels, 2, x, noise, label=told), z, r, 0.8
        )
        found = prior(z * prior.schedule.alpha(t).float()[:, None, None, None], t)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
        assert expected.std() > 0.3


def test_defaults_are_those_of_k_diffusion(tmp_path: Path) -> None:
    """Neighbourhoods of 7 but at the last level, heads of 64, sigma_data 1, mapping of 256."""
    levels = (Level("neighborhood", 7, 1, 64, 1), Level("global", 7, 1, 64, 1))
    state = random_state(levels, patch=2, mapping=256)
    raw: dict[str, Any] = {
        "model": {
            "type": "image_transformer_v2", "input_channels": 3, "input_size": 16,
            "patch_size": 2, "depths": [1, 1], "widths": [64, 64],
        },
    }  # fmt: skip
    save_file(state, tmp_path / "a.safetensors", {"config": json.dumps(raw)})
    prior = load_denoiser(resolve(str(tmp_path / "a.safetensors")), device=CPU)
    t = torch.tensor(0.4, dtype=torch.float64)
    r = noise_ratio(prior.schedule, t).float()
    z = random(1, 3, 16, 16, seed=1)
    expected = denoised(lambda x, noise: hdit(state, levels, 2, x, noise), z, r, 1.0)
    found = prior(z * prior.schedule.alpha(t).float(), t)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
