import json
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import Result

import lavps_cli
from lavps_cli.catalog import SAMPLERS
from lavps_cli.models.hdit import HDiT, HDiTConfig
from lavps_cli.models.hdit_layers import LevelConfig
from lavps_cli.pipeline import listing
from lavps_cli.samplers.lavps import LavpsOptions

Lavps = Callable[..., Result]
ROOT = Path(__file__).parents[2]
Lines = Callable[[Result], list[dict[str, Any]]]


@pytest.fixture
def only_tiny(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the tiny model be the only bundled one, and the default."""
    known = {"tiny": model_folder, "tiny-inference": model_folder.with_name("tiny-inference")}
    monkeypatch.setattr("lavps_cli.weights.index.bundled", lambda: known)
    monkeypatch.setattr("lavps_cli.weights.index.DEFAULT", "tiny")
    monkeypatch.setattr(listing, "bundled", lambda: known)
    return model_folder


def test_list(lavps: Lavps, lines: Lines, only_tiny: Path) -> None:
    result = lavps("models", "list")
    assert result.exit_code == 0
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [
        ["tiny", "denoiser"],
        ["tiny-inference", "inference"],
    ]
    first = lines(lavps("models", "list", "--json"))[0]
    assert (first["name"], first["licence"], first["path"]) == ("tiny", "CC0-1.0", str(only_tiny))


def test_info_and_path(lavps: Lavps, lines: Lines, only_tiny: Path) -> None:
    for name in ("tiny", "default", str(only_tiny)):
        (about,) = lines(lavps("models", "info", name, "--json"))
        assert about["inference"] == "tiny-inference"
        assert len(about["sha256"]) == 64
        assert lavps("models", "path", name).stdout == f"{only_tiny}\n"
    assert "licence          CC0-1.0" in lavps("models", "info", "tiny").stdout


def test_weights_of_another_project_are_imported_listed_and_used(
    lavps: Lavps, lines: Lines, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    attention = {"type": "neighborhood", "d_head": 8, "kernel_size": 3}
    config = {
        "model": {
            "type": "image_transformer_v2", "input_channels": 3, "input_size": [16, 16],
            "patch_size": [2, 2], "depths": [1], "widths": [16], "self_attns": [attention],
            "mapping_width": 16, "mapping_depth": 1, "sigma_data": 0.5,
        },
    }  # fmt: skip
    level = LevelConfig(depth=1, width=16, d_ff=48, d_head=8, window=3)
    network = HDiT(
        HDiTConfig(
            levels=(level,), patch_size=2, mapping_width=16, mapping_d_ff=48, mapping_depth=1
        )
    )
    torch.save({"config": config, "model_ema": network.state_dict()}, tmp_path / "flowers.pth")
    result = lavps("models", "import", tmp_path / "flowers.pth", "--licence", "CC0-1.0", "--json")
    assert result.exit_code == 0, result.output
    assert lines(result)[0]["name"] == "flowers"
    listed = {line["name"]: line for line in lines(lavps("models", "list", "--json"))}
    assert listed["flowers"]["licence"] == "CC0-1.0"
    out = tmp_path / "out.png"
    restored = lavps(
        "restore", photo, "--task", "denoise", "--noise", "0.1", "--model", "flowers", "-O",
        "num_steps=3", "-o", out,
    )  # fmt: skip
    assert restored.exit_code == 0, restored.output
    again = lavps("models", "import", tmp_path / "flowers.pth")
    assert again.exit_code != 0
    assert "--force" in again.stderr
    assert "Traceback" not in again.output


def test_unknown_models(lavps: Lavps, only_tiny: Path) -> None:
    for command in ("info", "path"):
        result = lavps("models", command, "nowhere")
        assert result.exit_code == 5
        assert "no weights 'nowhere'" in result.stderr
        assert "tiny" in result.stderr


def test_samplers_show_their_options(lavps: Lavps, lines: Lines) -> None:
    found = lines(lavps("models", "list", "--samplers", "--json"))
    assert [sampler["name"] for sampler in found] == list(SAMPLERS)
    text = lavps("models", "list", "--samplers").stdout
    for option in fields(LavpsOptions):
        assert f"-O {option.name}={option.default}" in text


def test_doctor(lavps: Lavps, only_tiny: Path) -> None:
    result = lavps("doctor", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["ok"]
    assert found["versions"]["lavps"] == lavps_cli.__version__
    assert found["devices"][-1]["name"] == "cpu"
    assert found["formats"]["png"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(found["extras"]) == set(project["optional-dependencies"]) - {"test"}
    text = lavps("doctor")
    assert text.exit_code == 0
    assert "torch" in text.stdout
    assert ": ok, " in text.stdout


def test_doctor_without_weights(lavps: Lavps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lavps_cli.weights.index.bundled", dict)
    result = lavps("doctor")
    assert result.exit_code == 1
    assert "there are no weights 'default'" in result.stdout
    assert "torch" in result.stdout
