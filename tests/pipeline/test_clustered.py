"""Pictures restored on a cluster are those restored here, and none is lost or noted twice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage
from typer.testing import CliRunner, Result

from lavps_cli.cli.main import app

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # Ray's own.
    pytest.mark.usefixtures("cluster"),
]

Restore = Callable[..., Result]


@pytest.fixture
def restore(model_folder: Path) -> Restore:
    def run(*args: str | Path) -> Result:
        tiny = ("--model", model_folder, "--device", "cpu", "-O", "num_steps=3", "--threads", "1",
                "--task", "denoise", "--noise", "0.1", "--json", "-q")  # fmt: skip
        return CliRunner().invoke(app, [str(arg) for arg in ("restore", *tiny, *args)])

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        pixels = rng.integers(0, 255, (16 + i, 16, 3), np.uint8)
        PillowImage.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def lines(result: Result) -> list[dict[str, Any]]:
    told = [json.loads(line) for line in result.stdout.splitlines()]
    return sorted(told, key=lambda line: str(line["input"]))


def journal(folder: Path) -> list[dict[str, Any]]:
    text = (folder / ".lavps" / "journal.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def told(line: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a line without what differs from run to run."""
    output = Path(line["output"]).relative_to(folder)
    return line | {"output": output, "seconds": 0, "peak_memory_bytes": 0}


def test_a_cluster_gives_the_same_pictures_lines_and_journal(
    restore: Restore, photos: Path, tmp_path: Path
) -> None:
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    here, there = tmp_path / "here", tmp_path / "there"
    local = restore(photos, "-o", f"{here}/")
    ray = restore(photos, "-o", f"{there}/", "--engine", "ray", "--actors", 2)
    assert (local.exit_code, ray.exit_code) == (7, 7), ray.output
    for i in range(6):
        assert (there / f"{i}.png").read_bytes() == (here / f"{i}.png").read_bytes()
    good = [[line for line in lines(run) if line["status"] == "ok"] for run in (local, ray)]
    assert [told(line, here) for line in good[0]] == [told(line, there) for line in good[1]]
    notes = [
        sorted((e["input"], e["status"], e["settings"], e["sha256"]) for e in journal(folder))
        for folder in (here, there)
    ]
    assert notes[0] == notes[1]

    (there / "3.png").unlink()
    again = restore(photos, "-o", f"{there}/", "--engine", "ray", "--actors", 1)
    statuses = {Path(line["input"]).name: line["status"] for line in lines(again)}
    done = {f"{i}.png": "skipped" for i in (0, 1, 2, 4, 5)}
    assert statuses == done | {"3.png": "ok", "broken.png": "error"}


def test_a_manifest_is_streamed_and_no_input_is_replaced(
    restore: Restore, photos: Path, tmp_path: Path
) -> None:
    jobs = [{"input": f"in/{i}.png", "output": f"out/{i}.png", "seed": i} for i in range(4)]
    jobs.append({"input": "in/4.png", "output": "in/5.png"})
    jobs.append({"input": "in/5.png", "output": "out/5.png"})
    manifest = tmp_path / "jobs.jsonl"
    manifest.write_text("\n".join(map(json.dumps, jobs)))
    before = (photos / "5.png").read_bytes()
    (tmp_path / "out").mkdir()
    run = restore("--manifest", manifest, "--engine", "ray", "--actors", 1, "--force")
    assert run.exit_code == 7, run.output
    errors = [line["error"]["message"] for line in lines(run) if line["status"] == "error"]
    assert len(errors) == 1
    assert "would replace an input" in errors[0]
    assert (photos / "5.png").read_bytes() == before
    assert len(list((tmp_path / "out").glob("*.png"))) == 5
    jobs[1]["output"] = "out/0.png"
    manifest.write_text("\n".join(map(json.dumps, jobs)))
    twice = restore("--manifest", manifest, "--engine", "ray")
    assert twice.exit_code == 2
    assert "would be the result" in twice.output


def test_a_picture_that_ends_its_workers_is_left_out_and_noted(
    restore: Restore, photos: Path, tmp_path: Path
) -> None:
    prior = tmp_path / "prior.py"
    prior.write_text(
        "import os, torch\n"
        "from lavps_cli.core.schedule import Flow\n"
        "class Prior:\n"
        "    schedule = Flow()\n"
        "    def __call__(self, xt, t):\n"
        "        if xt.shape[-2] == 20: os._exit(9)\n"
        "        return 0 * xt\n"
        "def prior(device):\n"
        "    return Prior()\n"
    )
    out = tmp_path / "out"
    run = restore(photos, "-o", f"{out}/", "--engine", "ray", "--actors", 2,
                  "--model", f"{prior}:prior")  # fmt: skip
    failed = [line for line in lines(run) if line["status"] != "ok"]
    assert [Path(line["input"]).name for line in failed] == ["4.png"], run.output
    assert failed[0]["error"]["code"] == "device"
    assert {path.name for path in out.glob("*.png")} == {f"{i}.png" for i in (0, 1, 2, 3, 5)}
    entries = [(Path(entry["input"]).name, entry["status"]) for entry in journal(out)]
    assert sorted(entries) == [(f"{i}.png", "error" if i == 4 else "ok") for i in range(6)]


def test_a_cluster_that_is_not_there_is_told(
    restore: Restore, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = restore(photos, "-o", f"{tmp_path}/out/", "--actors", 2)
    assert (alone.exit_code, "--engine ray --actors 2" in alone.output) == (2, True)
    monkeypatch.setattr("lavps_cli.pipeline.pool.find_spec", lambda name: None)
    missing = restore(photos, "-o", f"{tmp_path}/out/", "--engine", "ray")
    assert (missing.exit_code, 'pip install "lavps[ray]"' in missing.output) == (2, True)
