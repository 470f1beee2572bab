"""Work on a Ray cluster, all on this machine: a node that is lost, what Ray costs, a long manifest.

    python benchmarks/cluster.py lost --pictures 500
    python benchmarks/cluster.py overhead --pictures 64
    python benchmarks/cluster.py manifest --lines 1000000
    python benchmarks/cluster.py simulate --tasks 1000000

The first three restore with a closed-form prior (`examples/02_own_prior.py`) or not at all: what is
measured is what surrounds the networks. Set RAY_worker_niceness=0 where others use the machine.
"""

import argparse
import json
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray
from PIL import Image as PillowImage
from ray.cluster_utils import Cluster as LocalCluster

from lavps_cli.pipeline.pool import Cluster, Done, pooled
from lavps_cli.pipeline.requests import (
    Compute,
    Output,
    Problem,
    Restoration,
    Sampling,
    Selection,
    Spread,
)
from lavps_cli.pipeline.restore import restore_files
from lavps_cli.pipeline.results import Failure, Pipes
from lavps_cli.pipeline.streaming import plan_jobs

PRIOR = Path(__file__).parent.parent / "examples" / "02_own_prior.py"


class Quiet:
    """Prints warnings, and nothing else."""

    def note(self, text: str) -> None: ...

    def detail(self, text: str) -> None: ...

    def warn(self, text: str) -> None:
        if "explains" not in text:
            print(f"  {text}")

    def progress(self, progress: object) -> None: ...


PIPES = Pipes(read=bytes, write=lambda content: None)


def pictures(folder: Path, count: int, side: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        pixels = rng.integers(0, 255, (side, side, 3), np.uint8)
        PillowImage.fromarray(pixels).save(folder / f"{i:05d}.png")


def request(
    folder: Path, out: Path, *, steps: int, ray_engine: bool, processes: str | None = None
) -> Restoration:
    return Restoration(
        inputs=(str(folder),),
        problem=Problem(task="denoise", noise="0.1"),
        sampling=Sampling(method="mgdm", settings=(f"num_steps={steps}",)),
        compute=Compute(model=f"{PRIOR}:pink", device="auto", threads="1"),
        output=Output(output=f"{out}/"),
        spread=Spread(engine="ray", actors=2) if ray_engine else Spread(),
        gpus=processes,
    )


def lost(count: int) -> None:
    """Restore pictures on two nodes, one of which is killed half-way and not replaced."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        pictures(home / "in", count, 16)
        cluster = LocalCluster(initialize_head=True, head_node_args={"num_cpus": 1})
        node = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        killed = False
        statuses: Counter[str] = Counter()
        started = time.monotonic()
        work = request(home / "in", home / "ray", steps=5, ray_engine=True)
        for done, outcome in enumerate(restore_files(work, Quiet(), PIPES), 1):
            statuses["error" if isinstance(outcome, Failure) else outcome.status] += 1
            if done >= count // 2 and not killed:
                killed = True
                cluster.remove_node(node, allow_graceful=False)
                print(f"node killed after {done} pictures, {time.monotonic() - started:.1f} s")
        print(f"{count} pictures in {time.monotonic() - started:.1f} s: {dict(statuses)}")
        ray.shutdown()
        cluster.shutdown()
        for _ in restore_files(
            request(home / "in", home / "local", steps=5, ray_engine=False), Quiet(), PIPES
        ):
            pass
        names = sorted(path.name for path in (home / "local").glob("*.png"))
        same = sum(
            (home / "ray" / n).read_bytes() == (home / "local" / n).read_bytes() for n in names
        )
        lines = (home / "ray" / ".lavps" / "journal.jsonl").read_text().splitlines()
        inputs = Counter(json.loads(line)["input"] for line in lines)
        print(f"byte-identical to the local engine: {same} of {len(names)}")
        print(f"journal: {len(lines)} lines, {len(inputs)} inputs, {max(inputs.values())} at most")


def overhead(count: int) -> None:
    """Time pictures in two processes and with two workers, in turn."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        pictures(home / "in", count, 64)
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
        for turn in range(3):
            for engine in ("local", "ray"):
                begun = first = time.monotonic()
                work = request(
                    home / "in",
                    home / f"{engine}{turn}",
                    steps=20,
                    ray_engine=engine == "ray",
                    processes="cpu,cpu" if engine == "local" else None,
                )
                for i, _ in enumerate(restore_files(work, Quiet(), PIPES)):
                    if i == 3:  # Workers have begun, networks are warm.
                        first = time.monotonic()
                rate = (count - 4) / (time.monotonic() - first)
                print(f"{engine:5} {rate:6.2f} pictures a second, {first - begun:5.1f} s to begin")
        ray.shutdown()


def manifest(count: int) -> None:
    """Tell the time and the memory that planning a manifest takes."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "jobs.jsonl"
        with path.open("w") as file:
            for i in range(count):
                line = {"input": f"memory://in/{i // 1000:04d}/{i:08d}.png", "seed": i, "scale": 4}
                file.write(json.dumps(line | {"output": f"memory://out/{i:08d}.png"}) + "\n")
        work = Restoration(
            inputs=(), select=Selection(manifest=str(path)), spread=Spread(engine="ray")
        )
        before, started = _peak(), time.monotonic()
        plan = plan_jobs(work, Quiet(), PIPES, check=lambda request: None)
        print(f"{plan.count} lines checked in {time.monotonic() - started:.1f} s")
        print(f"peak memory {before:.0f} MB before, {_peak():.0f} MB after")
        started = time.monotonic()
        for i, _ in enumerate(plan.jobs()):
            if i == min(count, 100_000) - 1:
                break
        print(f"{(i + 1) / (time.monotonic() - started):.0f} jobs a second; {_peak():.0f} MB")


def simulate(count: int) -> None:
    """Give workers tasks that take no time, and tell how many a second one driver gives."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")

    def work() -> Callable[[tuple[int, ...]], int]:
        return lambda task: sum(task)

    for size in (1, 16, 256):
        number = min(count, 4000 * size)

        def tasks(size: int = size, number: int = number) -> Iterator[tuple[int, ...]]:
            return (tuple(range(i, i + size)) for i in range(0, number, size))

        started, total, begun = time.monotonic(), 0, 0.0
        stream: Any = pooled(tasks(), work, Cluster(actors=2, ahead=8), Quiet())
        for each in stream:
            assert isinstance(each, Done)
            begun = begun or time.monotonic()
            total += len(each.task)
        rate = total / (time.monotonic() - begun)
        print(f"{size:4} a task: {rate:8.0f} pictures a second, {1000 / rate:.3f} ms a picture")
        print(f"      peak memory of the driver {_peak():.0f} MB; {begun - started:.1f} s to begin")
    ray.shutdown()


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("lost", "overhead", "manifest", "simulate"))
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    given = parser.parse_args()
    {"lost": lambda: lost(given.pictures), "overhead": lambda: overhead(given.pictures),
     "manifest": lambda: manifest(given.lines), "simulate": lambda: simulate(given.tasks)}[
        given.what
    ]()  # fmt: skip


if __name__ == "__main__":
    main()
