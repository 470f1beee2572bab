"""Sweeps on a cluster measure what they measure here."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage
from typer.testing import CliRunner, Result

from lavps_cli.bench.records import Record, read
from lavps_cli.cli.main import app

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # Ray's own.
    pytest.mark.usefixtures("cluster"),
]

Run = Callable[..., Result]
RAY = ("--engine", "ray", "--actors", "2")


@pytest.fixture
def run(model_folder: Path, tmp_path: Path) -> Run:
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        pixels = rng.integers(0, 255, (16, 16, 3), np.uint8)
        PillowImage.fromarray(pixels).save(photos / f"{i}.png")

    def command(name: str, *args: str | Path) -> Result:
        tiny = ("--model", model_folder, "--device", "cpu", "--threads", "1", "--size", "16",
                "--dataset", photos, "--json", "-q")  # fmt: skip
        return CliRunner().invoke(app, [str(arg) for arg in (name, *tiny, *args)])

    return command


def measured(folder: Path) -> dict[Any, Any]:
    """Return what records say, but for what the clock and the process decide."""

    def of(record: Record) -> dict[str, Any]:
        return {
            "units": record.units, "metrics": record.metrics, "residual": record.residual,
            "device": record.device, "threads": record.threads,
        }  # fmt: skip

    return {record.key: of(record) for record in read([folder / "records.jsonl"])}


def test_a_benchmark_has_the_same_records_and_goes_on(run: Run, tmp_path: Path) -> None:
    what = ("benchmark", "--tasks", "denoise+0.1,sr:2", "--ood", "none", "-O", "num_steps=3",
            "--metrics", "psnr")  # fmt: skip
    here, there = tmp_path / "here", tmp_path / "there"
    local, ray = run(*what, "-o", here), run(*what, "-o", there, *RAY)
    assert (local.exit_code, ray.exit_code) == (0, 0), ray.output
    assert measured(here) == measured(there)
    lines = (there / "records.jsonl").read_text().splitlines()
    (there / "records.jsonl").write_text("\n".join(lines[:3]) + "\n")
    assert run(*what, "-o", there, *RAY).exit_code == 0
    assert measured(here) == measured(there)
    assert (there / "records.jsonl").read_text().splitlines()[:3] == lines[:3]


def test_a_calibration_has_the_same_records(run: Run, tmp_path: Path) -> None:
    grid = tmp_path / "grid.json"
    grid.write_text(json.dumps({
        "mgdm": [{"num_steps": 4}],
        "lavps": [{"num_steps": 4, "switch_ratio": 0.6}, {"num_steps": 4, "switch_ratio": 0.8}],
    }))  # fmt: skip
    what = ("calibrate-speedup", "--task", "denoise+0.1", "--metric", "psnr", "--grid", grid,
            "--cost", "evaluations", "--no-save")  # fmt: skip
    here, there = tmp_path / "here", tmp_path / "there"
    local, ray = run(*what, "-o", here), run(*what, "-o", there, *RAY)
    assert (local.exit_code, ray.exit_code) == (0, 0), ray.output
    assert measured(here) == measured(there)
