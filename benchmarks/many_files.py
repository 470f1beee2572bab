"""Batches of pictures under kill -9, on a full disk, in tens of thousands, and their throughput.

    python benchmarks/many_files.py kill [--pictures 200] [--kills 20] [--seed 0]
    python benchmarks/many_files.py full DIR        (a small file system, mounted empty)
    python benchmarks/many_files.py count [--pictures 10000]
    python benchmarks/many_files.py journal [--pictures 2000]
    python benchmarks/many_files.py throughput [--pictures 12] [--side 256] [--flags ...]

`kill` runs the same command again and again and kills it at random moments, then lets it finish
and compares with a run that nobody disturbed.
"""

import argparse
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from lavps_cli.pipeline.journal import Entry, Journal, Stamp

PROGRAM = [sys.executable, "-m", "lavps_cli", "restore"]
FEW = ["--task", "denoise", "--noise", "0.1", "--device", "cpu", "-q"]
FEW += ["-O", "num_steps=3", "-O", "grad_steps_start=0", "-O", "grad_steps_end=0"]
JOURNAL = Path(".lavps") / "journal.jsonl"


def make(folder: Path, count: int, side: int) -> None:
    """Fill a folder, a quarter of it below the rest, with smooth and noisy pictures."""
    rng = np.random.default_rng(0)
    for i in range(count):
        place = folder / "sub" if i % 4 == 0 else folder
        place.mkdir(parents=True, exist_ok=True)
        shade = np.linspace(0, 160, side)[None, :, None] + rng.uniform(0, 60, 3)
        values = shade + rng.normal(0, 6, (side, side, 3))
        Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(place / f"picture {i}.png")


def restore(folder: Path, out: Path, *flags: str) -> "subprocess.Popen[bytes]":
    command = [*PROGRAM, str(folder), "-r", "-o", str(out), *flags]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def contents(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file() and ".lavps" not in p.parts)
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def lines_of(out: Path) -> int:
    journal = out / JOURNAL
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def begun(process: "subprocess.Popen[bytes]", out: Path, lines: int) -> None:
    """Return when a process has finished its first picture."""
    while process.poll() is None and lines_of(out) <= lines:
        time.sleep(0.001)


def kill(given: argparse.Namespace, folder: Path) -> None:
    make(folder / "in", given.pictures, 32)
    process = restore(folder / "in", folder / "whole", *FEW)
    begun(process, folder / "whole", 0)
    started = time.perf_counter()
    assert process.wait() == 0
    whole, seconds = contents(folder / "whole"), time.perf_counter() - started
    assert len(whole) == given.pictures
    print(f"undisturbed: {seconds:.1f} s for {given.pictures} pictures")
    draw, out = random.Random(given.seed), folder / "out"
    for number in range(given.kills):
        process = restore(folder / "in", out, *FEW)
        begun(process, out, lines_of(out))
        time.sleep(draw.uniform(0, seconds / given.kills))
        process.kill()
        process.wait()
        found = contents(out)
        parts = [name for name in found if name.endswith(".part")]
        done = {name: content for name, content in found.items() if name not in parts}
        assert all(whole[name] == content for name, content in done.items())
        print(f"kill {number + 1}: {len(done)} whole, {len(parts)} unfinished, "
              f"{lines_of(out)} lines")  # fmt: skip
    assert restore(folder / "in", out, *FEW).wait() == 0
    assert contents(out) == whole
    again = time.perf_counter()
    assert restore(folder / "in", out, *FEW).wait() == 0
    print(f"complete and identical; again in {time.perf_counter() - again:.1f} s")


def full(given: argparse.Namespace, folder: Path) -> None:
    make(folder / "in", 60, 64)
    assert restore(folder / "in", folder / "whole", *FEW).wait() == 0
    whole, out = contents(folder / "whole"), Path(given.folder) / "out"
    code = restore(folder / "in", out, *FEW).wait()
    found = contents(out)
    assert code == 7
    assert all(whole[name] == content for name, content in found.items())
    print(f"full: exit code {code}, {len(found)} of {len(whole)} written, all whole")


def count(given: argparse.Namespace, folder: Path) -> None:
    make(folder / "in", 1, 8)
    (source,) = (folder / "in").rglob("*.png")
    out = folder / "out"
    assert restore(folder / "in", out, *FEW).wait() == 0
    (result,) = out.rglob("*.png")
    line = json.loads((out / JOURNAL).read_text())
    with (out / JOURNAL).open("a") as journal:  # As if all were done.
        for i in range(given.pictures - 1):
            os.link(source, source.with_name(f"{i}.png"))
            os.link(result, result.with_name(f"{i}.png"))
            name = f"sub/{i}.png"
            line |= {"input": str(source.with_name(f"{i}.png")), "output": name}
            line["files"][0]["name"] = name
            journal.write(json.dumps(line) + "\n")
    for what, flags in (("one of a thousand shares", ["--shard", "1/1000"]), ("all", [])):
        started = time.perf_counter()
        process = restore(folder / "in", out, *FEW, *flags)
        _, code, used = os.wait4(process.pid, 0)
        assert code == 0
        seconds, busy = time.perf_counter() - started, used.ru_utime + used.ru_stime
        print(f"{given.pictures} pictures that are done, {what}: {seconds:.1f} s, "
              f"{busy:.1f} s of CPU, {used.ru_maxrss // 1024} MiB")  # fmt: skip


def journal(given: argparse.Namespace, folder: Path) -> None:
    entry = Entry("in.png", "in.png", "settings", Stamp(1, 1, "0" * 64), task="denoise")
    for number in range(given.repeats):
        told = []
        for threads in (1, 2, 4, 8, 16):
            book = Journal(folder / f"{number}-{threads}.jsonl")
            started = time.perf_counter()
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(book.add, [entry] * given.pictures))
            rate = given.pictures / (time.perf_counter() - started)
            told.append(f"{threads} threads {rate:.0f}")
        print(f"{number}: lines a second: {', '.join(told)}", flush=True)


def throughput(given: argparse.Namespace, folder: Path) -> None:
    make(folder / "in", given.pictures, given.side)
    flags = shlex.split(given.flags)
    for number in range(given.repeats):
        took = []
        pictures = sorted((folder / "in").rglob("*.png"))
        some = pictures[: given.alone]
        started = time.perf_counter()
        for path in some:
            alone = [*PROGRAM, str(path), "-o", str(folder / "alone.png"), "-f", *flags]
            subprocess.run(alone, check=True, stdout=subprocess.DEVNULL)
        took.append(("a process each", (time.perf_counter() - started) / len(some)))
        ways = {"one after another": ["--fail-fast"], "overlapped": []}
        for name, more in (
            ways | {f"batches of {n}": ["--batch-size", n] for n in ("4", "16")}
        ).items():
            out = folder / "out"
            shutil.rmtree(out, ignore_errors=True)
            started = time.perf_counter()
            assert restore(folder / "in", out, *flags, *more).wait() == 0
            took.append((name, (time.perf_counter() - started) / given.pictures))
        print(f"{number}: " + ", ".join(f"{name} {s:.2f} s" for name, s in took), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["kill", "full", "count", "journal", "throughput"])
    parser.add_argument("folder", nargs="?", help="for full: where there is little room")
    parser.add_argument("--pictures", type=int)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--alone", type=int, default=3, help="processes that are timed")
    parser.add_argument("--flags", default="--task denoise --noise 0.1 --preset fast -q")
    given = parser.parse_args()
    if given.pictures is None:
        given.pictures = {"kill": 200, "count": 10_000, "journal": 2000}.get(given.what, 12)
    with tempfile.TemporaryDirectory() as folder:
        ways = {"kill": kill, "full": full, "count": count, "journal": journal}
        (ways | {"throughput": throughput})[given.what](given, Path(folder))


if __name__ == "__main__":
    main()
