"""Places that cannot be read or written, and names that programs stumble over."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PillowImage
from typer.testing import Result

Lavps = Callable[..., Result]
Lines = Callable[[Result], list[dict[str, Any]]]
Listed = Callable[[Path], list[str]]
DENOISE = ("--task", "denoise", "--noise", "0.1")
not_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")


@pytest.mark.parametrize(
    "name",
    ["Föhn für später.png", "名前.png", "a\nb.png", "-dash.png", "q'\"$`%{stem}.png", "🐈.png"],
)
def test_names(restore: Lavps, lines: Lines, photo: Path, listed: Listed, name: str) -> None:
    path = photo.rename(photo.with_name(name))
    result = restore(path, *DENOISE, "--json")
    assert result.exit_code == 0, result.output
    (line,) = lines(result)
    assert line["output"] == str(path.with_name(f"{path.stem}.restored.png"))
    assert listed(path.parent) == sorted([path.name, f"{path.stem}.restored.png"])


def test_bytes_that_are_no_unicode(restore: Lavps, photo: Path) -> None:
    path = photo.rename(photo.with_name(os.fsdecode(b"latin-\xe9.png")))
    result = restore(path, *DENOISE, "--json")
    assert result.exit_code == 0
    assert "latin-\\udce9.restored.png" in result.stdout
    assert path.with_name(os.fsdecode(b"latin-\xe9.restored.png")).is_file()


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "nul\0.png"])
def test_names_that_no_file_has(restore: Lavps, photo: Path, tmp_path: Path, name: str) -> None:
    result = restore(f"{tmp_path}/{name}", *DENOISE)
    assert result.exit_code == 3, result.output
    assert "Traceback" not in result.output
    result = restore(photo, *DENOISE, "-o", f"{tmp_path}/{name}")
    assert result.exit_code == 4, result.output


def test_names_that_fill_what_is_allowed(restore: Lavps, photo: Path, tmp_path: Path) -> None:
    for out in ("x" * 251 + ".png", "ü" * 125 + ".png"):
        assert restore(photo, *DENOISE, "-o", tmp_path / out).exit_code == 0
        assert (tmp_path / out).is_file()


@not_root
def test_an_input_that_may_not_be_read(restore: Lavps, photo: Path) -> None:
    photo.chmod(0)
    result = restore(photo, *DENOISE)
    assert result.exit_code == 3
    assert "may not be read" in result.stderr


@not_root
def test_a_folder_that_may_not_be_written(restore: Lavps, photo: Path, listed: Listed) -> None:
    photo.parent.chmod(0o555)
    try:
        result = restore(photo, *DENOISE)
    finally:
        photo.parent.chmod(0o755)
    assert result.exit_code == 4
    assert listed(photo.parent) == ["photo.png"]


def test_an_input_that_vanishes(
    restore: Lavps, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def vanish(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self == photo:
            self.unlink()
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", vanish)
    result = restore(photo, *DENOISE)
    assert result.exit_code == 3
    assert "no such file" in result.stderr


def test_a_folder_that_vanishes_meanwhile(
    restore: Lavps, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lavps_cli.pipeline import run

    out = tmp_path / "out"
    out.mkdir()
    draw = run.draw

    def remove(*args: Any, **kwargs: Any) -> Any:
        out.rmdir()
        return draw(*args, **kwargs)

    monkeypatch.setattr(run, "draw", remove)
    result = restore(photo, *DENOISE, "-o", out / "x.png")
    assert result.exit_code == 4
    assert "cannot be written" in result.stderr


@pytest.mark.usefixtures("no_large_files")
def test_a_disk_that_is_full(restore: Lavps, photo: Path, listed: Listed) -> None:
    result = restore(photo, "--scale", "4")
    assert result.exit_code == 4
    assert "cannot be written" in result.stderr
    assert listed(photo.parent) == ["photo.png"]


@pytest.mark.usefixtures("no_large_files")
def test_degrading_on_a_disk_that_is_full(lavps: Lavps, photo: Path, listed: Listed) -> None:
    with PillowImage.open(photo) as image:
        image.resize((200, 200)).save(photo)
    result = lavps("degrade", photo, "--task", "denoise")
    assert result.exit_code == 4
    assert listed(photo.parent) == ["photo.png"]
