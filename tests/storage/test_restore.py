"""`lavps restore` with URLs does what it does with paths."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage
from typer.testing import CliRunner, Result

from lavps_cli.cli.main import app
from lavps_cli.storage import failures
from lavps_cli.storage.failures import UnreachableError
from lavps_cli.storage.parts import Parts
from lavps_cli.storage.remote import Remote

Run = Callable[..., Result]


@pytest.fixture
def run(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("NO_COLOR", "1")

    def restore(*args: str | Path) -> Result:
        tiny = ("--model", model_folder, "--device", "cpu", "-O", "num_steps=3", "--task",
                "denoise", "--noise", "0.1")  # fmt: skip
        return CliRunner().invoke(app, [str(arg) for arg in ("restore", *args, *tiny)])

    return restore


@pytest.fixture
def photos(tmp_path: Path, store: Remote) -> Path:
    """Three small pictures, on the disk and in the store."""
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png", "sub/c.png"):
        path = tmp_path / "in" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        PillowImage.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(path)
        (store / "in" / name).write_bytes(path.read_bytes())
    (store / "in" / "notes.txt").write_bytes(b"text")
    (store / "in" / ".hidden.png").write_bytes(b"text")
    return tmp_path / "in"


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def names(folder: Remote) -> set[str]:
    return {each.relative_to(folder).as_posix() for each in folder.below()}


def test_folders_of_a_store_are_those_of_the_disk(run: Run, photos: Path, store: Remote) -> None:
    there = run("memory://box/in", "-r", "-o", "memory://box/out", "--json")
    here = run(photos, "-r", "-o", f"{photos.parent}/out/", "--json")
    assert (there.exit_code, here.exit_code) == (0, 0), there.output
    pictures = {name for name in names(store / "out") if name.endswith(".png")}
    assert pictures == {"a.png", "b.png", "sub/c.png"}
    for name in pictures:
        assert (store / "out" / name).read_bytes() == (photos.with_name("out") / name).read_bytes()
    assert [line["output"] for line in lines(there)] == [
        line["output"].replace(str(photos.parent), "memory://box") for line in lines(here)
    ]
    entries = [json.loads(line) for line in Parts(store / "out/.lavps/journal.jsonl").read()]
    assert [entry["input"] for entry in entries] == [
        f"memory://box/in/{name}" for name in ("a.png", "b.png", "sub/c.png")
    ]


def test_the_same_command_goes_on(run: Run, photos: Path, store: Remote) -> None:
    command = ("memory://box/in/*.png", "-o", "memory://box/out/", "--json")
    assert run(*command).exit_code == 0
    before = (store / "out" / "b.png").stat()
    (store / "out" / "a.png").unlink()
    assert [line["status"] for line in lines(run(*command))] == ["ok", "skipped"]
    assert (store / "out" / "b.png").stat() == before
    (store / "in" / "b.png").write_bytes((store / "in" / "a.png").read_bytes())
    again = run(*command)  # Another input: the result of the old one is not replaced unasked.
    assert [line["status"] for line in lines(again)] == ["skipped", "error"]
    assert lines(again)[1]["error"]["code"] == "unwritable"


def test_manifests_name_objects(run: Run, photos: Path, store: Remote) -> None:
    jobs: list[dict[str, Any]] = [
        {"input": "in/a.png", "output": "out/first.png"},
        {"input": str(photos / "b.png"), "output": "memory://box/out/second.png", "seed": 3},
    ]
    text = "\n".join(map(json.dumps, jobs))
    (store / "jobs.jsonl").write_bytes(text.encode())
    result = run("--manifest", "memory://box/jobs.jsonl", "--json")
    assert result.exit_code == 0, result.output
    assert names(store / "out") >= {"first.png", "second.png"}


def test_what_goes_wrong_is_told(
    run: Run, photos: Path, store: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = run("memory://box/in/none.png", "-o", "memory://box/x.png", "--json")
    assert (missing.exit_code, lines(missing)[0]["error"]["code"]) == (3, "unreadable")
    nothing = run("memory://box/nothing/", "-o", "memory://box/out/")
    assert nothing.exit_code == 3
    other = run("https://example.org/a.png", "-o", photos.parent)
    assert (other.exit_code, "no storage" in other.output) == (2, True)
    monkeypatch.setattr(failures, "WAITS", ())
    monkeypatch.setattr(Remote, "write_bytes", _lost)
    broken = run("memory://box/in/a.png", "-o", "memory://box/x.png", "--json")
    assert (broken.exit_code, lines(broken)[0]["error"]["code"]) == (4, "unwritable")
    monkeypatch.setattr(Remote, "stat", _lost)
    broken = run("memory://box/in/a.png", "-o", photos.parent / "x.png", "--json")
    assert (broken.exit_code, lines(broken)[0]["error"]["code"]) == (3, "unreadable")
    assert "lost" in lines(broken)[0]["error"]["message"]


def _lost(self: Remote, *args: object) -> None:
    raise UnreachableError(103, "the connection was lost", str(self))
