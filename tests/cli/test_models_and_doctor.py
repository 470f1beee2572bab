import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

import lavps_cli
from lavps_cli.catalog import SAMPLERS
from lavps_cli.pipeline import listing
from lavps_cli.samplers.lavps import LavpsOptions

Lavps = Callable[..., Result]
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
