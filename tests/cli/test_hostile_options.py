"""Every option of every command with values that nobody should give: a message, no bug.

Run this file to try all of them: python tests/cli/test_hostile_options.py
"""

import os
import resource
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image as PillowImage
from typer.testing import CliRunner

from lavps_cli.cli.main import app

VALUES = (
    *("", " ", "-", ".", "nothing/there.png", "photo.png", "empty", "x" * 5000, "y/" * 3000),
    *("-1", "0", "1", "3", "1e400", "nan", "-inf", "9" * 400, "0x10", "1.5", "1/0", "2/3"),
    *("é\udce9", "[red]", "{", "{stem}", "{stem.__class__}", "{0}", "%s", "a:b", "a=b", "a,,b"),
    *(
        "*",
        "[",
        "~",
        "~nobody/x",
        "nope://x",
        "file://x",
        "memory://",
        "s3://u:p@x",
        "auto",
        "none",
    ),
)
COMMANDS = {
    "degrade": ["photo.png", "--mask", "centre", "--max-pixels", "10000"],
    "restore": ["photo.png", "--task", "denoise", "-n", "--model", "tiny"],
    "evaluate": ["empty", "empty"],
    "benchmark": ["--dataset", "empty", "--model", "tiny"],
    "calibrate-speedup": ["--dataset", "empty", "--model", "tiny"],
    "train": ["--dataset", "empty"],
    "models info": [],
    "models path": [],
    "models import": [],
    "config show": [],
}
EXPENSIVE = {"--help", "--engine", "--dataset", "--gpus", "--config"}
"""What starts other programs, or work that nothing stops early; files of settings are elsewhere."""
CODES = range(9)


def options_of(words: str) -> Iterator[Any]:
    command: Any = typer.main.get_command(app)
    for word in words.split():
        command = command.commands[word]
    for param in command.params:
        if not EXPENSIVE.intersection(param.opts):
            yield param


def lines() -> list[list[str]]:
    """Return command lines, each with one value that is not expected."""
    found = []
    for words, given in COMMANDS.items():
        for param in options_of(words):
            if param.param_type_name == "argument":
                found += [[*words.split(), "--", value] for value in VALUES]
            elif not param.is_flag:
                name = max(param.opts, key=len)
                found += [[*words.split(), *given, f"{name}={value}"] for value in VALUES]
    return found


def scene(folder: Path, model: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "tiny").symlink_to(model)
    values = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    PillowImage.fromarray(values).save(folder / "photo.png")


def tried(line: list[str]) -> int:
    """Run a command line; it ends with an exit code that has a meaning, and in words."""
    result = CliRunner().invoke(app, line)
    told = f"{[word[:60] for word in line]}: {result.exit_code} {result.output[-600:]}"
    usage = isinstance(result.exception, typer.TyperException)
    assert usage or result.exception is None or isinstance(result.exception, SystemExit), told
    assert "Traceback" not in result.output, told
    assert "bug in lavps" not in result.output, told
    assert result.exit_code in CODES, told
    return result.exit_code


def test_values_that_nobody_should_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folder: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    scene(tmp_path, model_folder)
    every = lines()
    chosen = np.random.default_rng(5).choice(len(every), 120, replace=False)
    codes = Counter(tried(every[i]) for i in chosen)
    assert codes[0] > 0
    assert codes[2] > 30


HUGE = "9" * 400


@pytest.mark.parametrize(
    "line",
    [
        *(f"restore photo.png --task denoise -n --model tiny --{name}={HUGE}"
          for name in ("tile", "threads", "samples", "page", "batch-size")),
        f"restore photo.png --task denoise -n --model tiny -O num_steps={HUGE}",
        f"benchmark --dataset pictures --model tiny --size 16 --images={HUGE} --threads={HUGE}",
        f"train --stage prior --preset tiny --dataset pictures --threads={HUGE}",
        "train --stage prior --preset tiny --dataset pictures --validation=\udce9",
        "train --stage prior --preset tiny --dataset pictures --licence=\udce9",
    ],
    ids=lambda line: ascii(line.replace(HUGE, "9...").split()[-1]),
)  # fmt: skip
def test_values_that_once_were_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folder: Path, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    scene(tmp_path, model_folder)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").hardlink_to(tmp_path / "photo.png")
    assert tried(line.split()) in (2, 3, 6)


def too_long(number: int, frame: FrameType | None) -> None:
    raise AssertionError("more than 30 s")


def main(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    signal.signal(signal.SIGALRM, too_long)
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from conftest import model_folder  # type: ignore[import-not-found]

    class Factory:
        def mktemp(self, name: str) -> Path:
            (folder / "models").mkdir()
            return folder / "models"

    model = model_folder.__wrapped__(Factory())
    work = folder / "work"
    work.mkdir()
    os.chdir(work)
    os.environ |= {"XDG_CONFIG_HOME": str(folder / "x"), "XDG_CACHE_HOME": str(folder / "c")}
    scene(work, model)
    codes: Counter[str] = Counter()
    every = lines()
    for number, line in enumerate(every):
        # What ends the process leaves this behind.
        (folder / "now").write_text(f"{number} {line}"[:300], errors="surrogateescape")
        signal.alarm(30)
        try:
            codes[str(tried(line))] += 1
        except AssertionError as error:
            codes["FAILED"] += 1
            sys.stdout.write(f"{str(error).splitlines()[0]}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(every)} command lines, by exit code: {dict(codes)}\n")


if __name__ == "__main__":
    import tempfile

    main(Path(tempfile.mkdtemp(prefix="hostile-")))
