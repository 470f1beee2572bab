"""Driver and nodes of a cluster are lost, and nothing else is: pictures, journal, bytes."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from lavps_cli.pipeline.requests import (
    Compute,
    Output,
    Problem,
    Restoration,
    Sampling,
    Spread,
)
from lavps_cli.pipeline.restore import restore_files
from lavps_cli.pipeline.results import FILES_ONLY, Failure, Said

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own.

PRIOR = """
from lavps_cli.core.schedule import Flow
class Prior:
    schedule = Flow()
    def __call__(self, xt, t):
        return xt / 2
def prior(device):
    return Prior()
"""
SETTINGS = ("num_steps=3", "grad_steps_start=0", "grad_steps_end=0")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A cluster of two nodes on this machine, which one worker each fits on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        cluster.add_node(num_cpus=1)
        yield cluster
        cluster.shutdown()


def pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        pixels = rng.integers(0, 255, (8, 8 + i % 3, 3), np.uint8)
        PillowImage.fromarray(pixels).save(folder / f"{i:03d}.png")
    (folder.parent / "prior.py").write_text(PRIOR)
    return folder


def request(folder: Path, out: Path, spread: Spread = Spread()) -> Restoration:  # noqa: B008
    return Restoration(
        inputs=(str(folder),),
        problem=Problem(task="denoise", noise="0.1"),
        sampling=Sampling(method="mgdm", settings=SETTINGS),
        compute=Compute(model=f"{folder.parent}/prior.py:prior", device="cpu", threads="1"),
        output=Output(output=f"{out}/"),
        spread=spread,
    )


def journal(out: Path) -> list[str]:
    """Return the inputs of a journal's lines, all of them done."""
    lines = map(json.loads, (out / ".lavps" / "journal.jsonl").read_text().splitlines())
    return [line["input"] for line in lines if line["status"] == "ok"]


def results(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def expected(folder: Path, tmp_path: Path) -> dict[str, bytes]:
    """Return what the local engine makes of a folder."""
    outcomes = list(restore_files(request(folder, tmp_path / "local"), Said(), FILES_ONLY))
    assert not any(isinstance(outcome, Failure) for outcome in outcomes)
    return results(tmp_path / "local")


def test_the_command_goes_on_after_its_driver_was_killed(nodes: Any, tmp_path: Path) -> None:
    count = 40
    folder, out = pictures(tmp_path / "in", count), tmp_path / "out"
    # Slow enough for the kill to come in the middle.
    slow = PRIOR.replace("return xt", "time.sleep(0.02); return xt")
    (tmp_path / "prior.py").write_text(f"import time\n{slow}")
    command = [
        *(sys.executable, "-m", "lavps_cli", "restore", folder, "-o", f"{out}/", "--json", "-q"),
        *("--task", "denoise", "--noise", "0.1", "--method", "mgdm"),
        *(text for setting in SETTINGS for text in ("-O", setting)),
        *("--model", f"{tmp_path}/prior.py:prior", "--device", "cpu", "--threads", "1"),
        *("--engine", "ray", "--ray-address", nodes.address, "--actors", "2"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(12)]
    os.kill(process.pid, signal.SIGKILL)
    told += process.stdout.readlines()
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    reported = {json.loads(line)["input"] for line in told if line.endswith("}\n")}
    before = journal(out)
    assert reported <= set(before)
    assert 12 <= len(reported) < count

    again = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert again.returncode == 0
    statuses = {(line := json.loads(text))["input"]: line["status"]
                for text in again.stdout.splitlines()}  # fmt: skip
    assert len(statuses) == count
    assert {statuses[name] for name in reported} == {"skipped"}
    # Of what was in work a line may be older than the file that it is about: that one is made anew.
    noted = Counter(journal(out))
    assert len(noted) == count
    assert sum(noted.values()) - count <= 4
    assert all(noted[name] == 1 for name in reported)
    (tmp_path / "prior.py").write_text(PRIOR)
    assert results(out) == expected(folder, tmp_path)


def test_a_node_that_is_lost_costs_no_picture(nodes: Any, tmp_path: Path) -> None:
    count = 500
    folder, out = pictures(tmp_path / "in", count), tmp_path / "out"
    spread = Spread(engine="ray", address=nodes.address, actors=2)
    said, statuses, killed = Said(), Counter[str](), False
    outcomes = restore_files(request(folder, out, spread), said, FILES_ONLY)
    for done, outcome in enumerate(outcomes, 1):
        statuses["error" if isinstance(outcome, Failure) else outcome.status] += 1
        if done >= count // 2 and not killed:
            killed = True
            (worker,) = nodes.worker_nodes
            nodes.remove_node(worker, allow_graceful=False)
    assert statuses == {"ok": count}
    assert any("was lost" in text or "has ended" in text for _, text in said.messages)
    assert Counter(journal(out)) == {str(folder / f"{i:03d}.png"): 1 for i in range(count)}
    assert results(out) == expected(folder, tmp_path)
