import json
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from lavps_cli.cli.main import app

Lavps = Callable[..., Result]


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("LAVPS_CONFIG", raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERMINAL_WIDTH", "100")
    monkeypatch.setenv("_TYPER_FORCE_DISABLE_TERMINAL", "1")


@pytest.fixture
def lavps() -> Lavps:
    """Run a command line in this process."""

    def run(*args: str | Path, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(app, [str(arg) for arg in args], input=stdin)

    return run


@pytest.fixture
def restore(lavps: Lavps, model_folder: Path) -> Lavps:
    """Run `lavps restore` with the tiny model and few steps."""

    def run(*args: str | Path, stdin: bytes | None = None) -> Result:
        tiny = ("--model", model_folder, "--device", "cpu", "--dtype", "fp32")
        return lavps("restore", *args, *tiny, "-O", "num_steps=4", stdin=stdin)

    return run


@pytest.fixture
def lines() -> Callable[[Result], list[dict[str, Any]]]:
    """Return the JSON lines of a result."""

    def parse(result: Result) -> list[dict[str, Any]]:
        return [json.loads(line) for line in result.stdout.splitlines()]

    return parse


@pytest.fixture
def listed() -> Callable[[Path], list[str]]:
    """Return all files below a folder, hidden ones too."""

    def walk(folder: Path) -> list[str]:
        found = []
        for path, _, names in os.walk(folder):
            found += [str((Path(path) / name).relative_to(folder)) for name in names]
        return sorted(found)

    return walk


@contextmanager
def files_end_at(most: int) -> Iterator[None]:
    """Have files end at so many bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def no_large_files() -> Iterator[None]:
    """Files end at 20 kB."""
    with files_end_at(20_000):
        yield


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Files end at 1 kB."""
    with files_end_at(1000):
        yield
