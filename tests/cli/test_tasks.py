"""The kinds of damage, from the command line: made, undone, and told."""

import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as PillowImage
from typer.testing import Result

from lavps_cli.images import opening
from lavps_cli.pipeline import auto, case, runner
from lavps_cli.pipeline.auto import Curves, Point
from lavps_cli.pipeline.case import Case
from lavps_cli.pipeline.settings import preset_of

Lavps = Callable[..., Result]


@pytest.fixture
def restore_auto(lavps: Lavps, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Lavps:
    """Run `lavps restore --method auto` with the tiny model, of two methods with few steps."""
    points = [
        Point(task=task, method=method, num_steps=4, evaluations=cost, cost=cost, value=value)
        for task in ("sr", "denoise")
        for method, cost, value in (("ddrm", 4.0, 1.0), ("mgdm", 9.0, 2.0))
    ]
    made = Curves(model="m", metric="psnr", higher=True, size=16, images=1, points=points)
    monkeypatch.setattr("lavps_cli.pipeline.auto.known_curves", lambda weights: made)

    def run(*args: str | Path, stdin: bytes | None = None) -> Result:
        tiny = ("--model", model_folder, "--device", "cpu", "--dtype", "fp32")
        return lavps("restore", *args, *tiny, "--method", "auto", stdin=stdin)

    return run


DAMAGES = [
    ("--task", "colorize"),
    ("--gain", "2"),
    ("--jpeg-quality", "15"),
    ("--kernel", "5@0", "--mask", "rectangle"),
    ("--scale", "2", "--mask", "pixels"),
    ("--scale", "2", "--downsample", "gaussian:5@1"),
    ("--task", "denoise", "--noise", "poisson:30"),
]


@pytest.mark.parametrize("flags", DAMAGES, ids=" ".join)
def test_what_degrade_made_restore_undoes_without_being_told(
    lavps: Lavps, restore: Lavps, photo: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    made = lavps("degrade", photo, *flags, "-o", tmp_path / "bad.{ext}")
    assert made.exit_code == 0, made.output
    (bad,) = tmp_path.glob("bad.*")
    task = ("--task", "jpeg") if bad.suffix == ".jpg" else ()
    result = restore(bad, *task, "-o", tmp_path / "good.png", "--json", "--compare")
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    with PillowImage.open(tmp_path / "good.png") as good, PillowImage.open(photo) as clean:
        assert good.size == clean.size
        assert good.mode == "RGB"
    assert told["noise"]["source"] == ("tables" if task else "record")
    assert list(tmp_path.glob("*.compare.png"))


@pytest.mark.parametrize("flags", DAMAGES, ids=" ".join)
def test_simulation_does_the_same(restore: Lavps, photo: Path, flags: tuple[str, ...]) -> None:
    result = restore(photo, "--simulate", *flags, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["metrics"]["psnr"] > 0


def test_a_grey_picture_gets_colours_and_keeps_its_brightness(
    restore: Lavps, photo: Path, tmp_path: Path
) -> None:
    grey = tmp_path / "grey.png"
    with PillowImage.open(photo) as file:
        file.convert("L").save(grey)
    result = restore(grey, "--task", "colorize", "-o", tmp_path / "out.png")
    assert result.exit_code == 0, result.output
    with PillowImage.open(tmp_path / "out.png") as out:
        assert out.mode == "RGB"


def test_pixels_of_a_masked_blur_are_not_taken_as_they_are(
    lavps: Lavps, restore: Lavps, photo: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    lavps("degrade", photo, "--kernel", "5@0", "--mask", "rectangle", "-o", bad)
    assert restore(bad, "-o", tmp_path / "out.png").exit_code == 0
    with PillowImage.open(bad) as a, PillowImage.open(tmp_path / "out.png") as b:
        assert a.size == b.size
        same = sum(p == q for p, q in zip(a.tobytes(), b.tobytes(), strict=True))
        assert same < 0.5 * len(a.tobytes())


def test_what_is_told_of_a_damage(restore: Lavps, photo: Path) -> None:
    reduced = restore(photo, "--scale", "2", "--downsample", "box:3", "--json")
    assert json.loads(reduced.stdout)["downsample"]["type"] == "box"
    clipped = restore(photo, "--task", "declip", "--json", "-f")
    assert json.loads(clipped.stdout)["gain"] == 2


def test_a_method_is_chosen_within_a_time(restore_auto: Lavps, photo: Path) -> None:
    result = restore_auto(photo, "--task", "denoise", "--budget", "10m", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["method"], told["steps"]) == ("mgdm", 4)
    assert "mgdm with 4 steps: the best for denoise" in result.stderr
    again = restore_auto(
        photo, "--task", "denoise", "--budget", "10m", "--simulate", "--json", "-f"
    )
    assert again.exit_code == 0, again.output


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "needs a time"),
        (("--budget", "1s", "-O", "num_steps=3"), "belongs to one method"),
        (("--budget", "soon"), "--budget"),
        (("--budget", "0.000001s"), "the fastest, ddrm with 4 steps, takes"),
    ],
)
def test_a_method_cannot_be_chosen_without_a_time(
    restore_auto: Lavps, photo: Path, flags: tuple[str, ...], message: str
) -> None:
    result = restore_auto(photo, "--task", "denoise", *flags)
    assert result.exit_code == 2
    assert message in result.output


def test_a_picture_from_a_pipe_is_looked_at_once(restore_auto: Lavps, photo: Path) -> None:
    flags = ("--task", "denoise", "--budget", "10m", "-o", "-")
    result = restore_auto("-", *flags, stdin=photo.read_bytes())
    assert result.exit_code == 0
    assert result.stdout_bytes.startswith(b"\x89PNG")


def several(photo: Path, count: int) -> list[Path]:
    paths = [photo.with_name(f"{i}.png") for i in range(count)]
    for path in paths:
        path.write_bytes(photo.read_bytes())
    return paths


def test_the_picture_that_decides_is_read_once(
    restore_auto: Lavps, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    decoded: list[str] = []
    real_open, real_load = opening.opened, case.load_picture

    def watched_open(content: Any, name: str) -> Any:
        opened.extend([content.name] if isinstance(content, Path) else [])
        return real_open(content, name)

    def watched_load(content: bytes, name: str, *args: Any, **kwargs: Any) -> Any:
        decoded.append(Path(name).name)
        return real_load(content, name, *args, **kwargs)

    monkeypatch.setattr(opening, "opened", watched_open)
    monkeypatch.setattr(case, "load_picture", watched_load)
    paths = several(photo, 2)
    result = restore_auto(*paths, "--task", "denoise", "--budget", "10m")
    assert result.exit_code == 0, result.output
    assert opened == decoded == ["0.png", "1.png"]


@pytest.mark.parametrize("flags", [(), ("--simulate", "--noise", "0.1")])
def test_what_is_chosen_restores_as_if_it_were_named(
    restore_auto: Lavps, restore: Lavps, photo: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    flags = ("--scale", "2", *flags)
    a, b = tmp_path / "auto.png", tmp_path / "named.png"
    assert restore_auto(photo, *flags, "--budget", "10m", "-o", a).exit_code == 0
    named = ("--method", "mgdm", "--preset", preset_of(4), "-o", b)
    assert restore(photo, *flags, *named).exit_code == 0
    with PillowImage.open(a) as chosen, PillowImage.open(b) as told:
        assert chosen.tobytes() == told.tobytes()


def test_the_picture_that_decided_is_not_kept(
    restore_auto: Lavps, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = case.read_case
    read: list[weakref.ref[Case]] = []
    alive: list[bool] = []

    def watched(*args: Any) -> Case:
        alive.append(bool(read) and read[0]() is not None)
        found = real(*args)
        read.append(weakref.ref(found))
        return found

    monkeypatch.setattr("lavps_cli.pipeline.restore.read_case", watched)
    monkeypatch.setattr(runner, "read_case", watched)
    paths = several(photo, 6)
    result = restore_auto(*paths, "--task", "denoise", "--budget", "10m", "--fail-fast")
    assert result.exit_code == 0, result.output
    assert len(alive) == 6
    assert not alive[-1]  # One is done after the other, and few are read ahead.


def test_the_threads_that_restore_are_those_that_are_timed(
    restore_auto: Lavps, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, before = auto.probe, torch.get_num_threads()
    threads: list[int] = []

    def watched(*args: Any) -> Any:
        threads.append(torch.get_num_threads())
        return real(*args)

    monkeypatch.setattr(auto, "probe", watched)
    try:
        restore_auto(photo, "--task", "denoise", "--budget", "10m", "--threads", str(before + 1))
    finally:
        torch.set_num_threads(before)
    assert threads == [before + 1]
