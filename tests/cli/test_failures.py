"""Whatever goes wrong for the user: a message, a code, and nothing half done."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as PillowImage
from typer.testing import Result

Lavps = Callable[..., Result]
Lines = Callable[[Result], list[dict[str, Any]]]
Listed = Callable[[Path], list[str]]
Bytes = npt.NDArray[np.uint8]


def make(folder: Path, scene: Bytes) -> None:
    """Fill a folder with what may go wrong."""
    (folder / "text.png").write_text("no picture")
    (folder / "empty.png").touch()
    (folder / "cut.png").write_bytes((folder / "photo.png").read_bytes()[:300])
    # 16 bits of colour in a form that no installation reads whole.
    (folder / "deep.png").write_bytes(b"P6 48 32 65535\n" + bytes(48 * 32 * 6))
    frames = [PillowImage.fromarray(np.roll(scene, i, 0)) for i in (0, 9)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    PillowImage.new("L", (10, 10), 255).save(folder / "small.png")
    PillowImage.new("L", (48, 32), 0).save(folder / "black.png")
    (folder / "sub").mkdir()
    np.save(folder / "even.npy", np.ones((40, 40)))


CASES = [
    # arguments, exit code, what, what to do
    (["text.png", "--task", "denoise"], 3, "not a picture", "Readable are"),
    (["empty.png", "--task", "denoise"], 3, "empty.png is empty", "Check"),
    (["cut.png", "--task", "denoise"], 3, "cut.png is damaged", "again"),
    (["deep.png", "--task", "denoise"], 3, "has 16 bits per channel", "--bit-depth 8"),
    (["moving.gif", "--task", "denoise"], 3, "holds several pictures", "--page 1"),
    (["moving.gif", "--task", "denoise", "--page", "3"], 3, "no picture 3", "--page 1"),
    (["photo.png", "--task", "denoise", "--bit-depth", "16", "-o", "x.jpg"], 4, "8 bits", "png"),
    (["nothing.png", "--task", "denoise"], 3, "no such file", "Check the path"),
    (["sub", "--task", "denoise"], 3, "sub holds no pictures", "-r"),
    (["photo.png", "--task", "denoise", "--max-pixels", "1k"], 3, "48x32 pixels", "1536"),
    (["photo.png", "--scale", "8", "--max-pixels", "90k"], 3, "384x256 pixels", "98304"),
    (["photo.png", "--mask", "small.png"], 3, "is 10x10 but photo.png is 48x32", "--resize-mask"),
    (["photo.png", "--mask", "black.png"], 3, "fills nothing", "--invert-mask"),
    (["photo.png", "--mask", "none.png"], 3, "no such file", "Check the path"),
    (["photo.png", "--mask", "alpha"], 3, "no transparency", "--mask FILE"),
    (["photo.png", "--kernel", "33"], 3, "33x33 but photo.png is only 48x32", "smaller"),
    (["photo.png", "--kernel", "even.npy"], 3, "41x41 but photo.png is only 48x32", "smaller"),
    (["photo.png", "--kernel", "text.png"], 3, "not a picture", "Readable are"),
    (["photo.png", "--kernel", "2l"], 2, "no file named '2l' here", "--kernel 21"),
    (["photo.png"], 2, "which task?", "--task denoise"),
    (["photo.png", "--task", "deblur"], 2, "needs the kernel", "--kernel 21"),
    (["photo.png", "--task", "inpaint"], 2, "needs a mask", "--mask hole.png"),
    (["photo.png", "--scale", "17"], 2, "--scale 17", "2 to 16"),
    (["photo.png", "--scale", "2", "--kernel", "5"], 2, "different tasks", "--task"),
    (["photo.png", "--task", "denoise", "--noise", "0"], 2, "positive", "0.5/255"),
    (["photo.png", "--task", "denoise", "--noise", "x"], 2, "--noise x", "6.4/255"),
    (["photo.png", "--task", "denoise", "-O", "num_step=3"], 2, "num_step", "num_steps?"),
    (["photo.png", "--task", "denoise", "-O", "lr=-1"], 2, "lr is -1.0", ""),
    (["photo.png", "--task", "denoise", "--method", "lavp"], 2, "'lavp'", "Did you mean lavps?"),
    (["photo.png", "--task", "denoise", "--mean"], 2, "needs several samples", "--samples 8"),
    (["photo.png", "--task", "denoise", "--tile", "x"], 2, "--tile x", "auto"),
    (["photo.png", "--task", "denoise", "--tile", "15"], 2, "tile is 15", "multiple of 4"),
    (["photo.png", "--task", "denoise", "--threads", "0"], 2, "--threads 0", "auto"),
    (["photo.png", "--task", "denoise", "--device", "gpu"], 2, "--device gpu", "cpu, cuda"),
    (["photo.png", "--task", "denoise", "-f", "--existing", "skip"], 2, "contradicts", "one"),
    (["photo.png", "--simulate"], 2, "which task?", "--task sr"),
    ([], 2, "no pictures given", "lavps restore old.jpg"),
    (["photo.png", "deep.png", "--task", "denoise", "-o", "x.png"], 2, "hold all 2", "{stem}"),
    (["photo.png", "--task", "denoise", "-o", "x.xyz"], 2, "'.xyz'", ".png"),
    (["photo.png", "--task", "denoise", "-o", "{steam}.png"], 2, "{steam}", "{stem}"),
    (["photo.png", "--task", "denoise", "-o", "-", "--json"], 2, "both want stdout", "-o out.png"),
    (["photo.png", "--task", "denoise", "-o", "photo.png", "-f"], 4, "replace an input", "-o DIR/"),
    (["photo.png", "--task", "denoise", "-o", "small.png"], 4, "exists", "--force"),
    (["photo.png", "--task", "denoise", "-o", "no/x.png"], 4, "no such folder", "mkdir"),
    (["photo.png", "--task", "denoise", "-o", "text.png/"], 4, "cannot be made", "-o DIR/"),
    (["photo.png", "--task", "denoise", "--model", "nowhere"], 5, "no weights 'nowhere'", ""),
    (["photo.png", "--task", "denoise", "--model", "sub"], 5, "no config.json", "Known"),
    (["photo.png", "--task", "denoise", "--inference", "nowhere"], 5, "'nowhere'", ""),
    (["photo.png", "--task", "denoise", "--device", "cuda:77"], 6, "cuda:77", ""),
]


@pytest.mark.parametrize(("arguments", "code", "what", "todo"), CASES, ids=lambda v: str(v)[:60])
def test_errors(
    lavps: Lavps,
    model_folder: Path,
    photo: Path,
    scene: Bytes,
    listed: Listed,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    what: str,
    todo: str,
) -> None:
    make(photo.parent, scene)
    monkeypatch.chdir(photo.parent)
    before = listed(photo.parent)
    defaults = ["-O", "num_steps=3"]
    for flag, value in (("--model", str(model_folder)), ("--device", "cpu"), ("--dtype", "fp32")):
        defaults += [] if flag in arguments else [flag, value]
    result = lavps("restore", *arguments, *defaults, "-q")
    assert result.exit_code == code, result.output
    first, *rest = result.stderr.splitlines()
    assert first.startswith("usage error: " if code == 2 else "error: ")
    assert what in first
    assert todo in "\n".join(rest)
    assert all(line.startswith("  ") for line in rest)
    assert len(rest) == 1
    assert result.stdout == ""
    assert "Traceback" not in result.output
    assert listed(photo.parent) == before


def test_typer_itself_reports_the_same_code(lavps: Lavps) -> None:
    for arguments in (["restore", "--colour"], ["restore", "a.png", "--task", "x"], ["restroe"]):
        assert lavps(*arguments).exit_code == 2


def test_json_reports_failures_as_lines(restore: Lavps, lines: Lines, tmp_path: Path) -> None:
    result = restore(tmp_path / "none.png", "--task", "denoise", "--json")
    assert result.exit_code == 3
    (line,) = lines(result)
    assert line["status"] == "error"
    assert line["error"]["code"] == "unreadable"
    assert line["error"]["exit"] == 3
    assert "no such file" in line["error"]["message"]


def test_one_bad_picture_does_not_stop_the_others(
    restore: Lavps, lines: Lines, photo: Path, scene: Bytes, tmp_path: Path
) -> None:
    make(photo.parent, scene)
    inputs = [photo.parent / name for name in ("text.png", "photo.png", "deep.png", "black.png")]
    result = restore(*inputs, "--task", "denoise", "-o", f"{tmp_path}/out/")
    assert result.exit_code == 7
    assert [Path(line).name for line in result.stdout.splitlines()] == ["photo.png", "black.png"]
    assert result.stderr.count("error: ") == 2
    assert result.stderr.rstrip().endswith(
        f"2 of 4 failed (2 unreadable). Details: {tmp_path}/out/.lavps/journal.jsonl"
    )
    result = restore(inputs[0], inputs[2], "--task", "denoise")
    assert result.exit_code == 3
    result = restore(inputs[0], photo, "--task", "denoise", "-o", photo.parent / "{stem}.png")
    assert result.exit_code == 7  # Unreadable, and its own input.


def test_what_is_there_can_be_kept_or_replaced(
    restore: Lavps, lines: Lines, photo: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.png"
    out.write_text("mine")
    arguments = (photo, "--task", "denoise", "-o", out)
    assert restore(*arguments).exit_code == 4
    assert out.read_text() == "mine"
    skipped = restore(*arguments, "--existing", "skip")
    assert (skipped.exit_code, skipped.stdout) == (0, "")
    assert out.read_text() == "mine"
    assert lines(restore(*arguments, "--existing", "skip", "--json"))[0]["status"] == "skipped"
    assert restore(*arguments, "-f").exit_code == 0
    PillowImage.open(out).close()


def test_a_full_disk_leaves_nothing_half_written(
    restore: Lavps, photo: Path, listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    result = restore(photo, "--task", "denoise")
    assert result.exit_code == 4
    assert "No space left on device" in result.stderr
    assert listed(photo.parent) == ["photo.png"]


def test_a_bug_is_one_line_unless_asked(
    restore: Lavps, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("lavps_cli.pipeline.run.draw", broken)
    result = restore(photo, "--task", "denoise")
    assert result.exit_code == 1
    assert "a bug in lavps: ZeroDivisionError: oops" in result.stderr
    assert "lavps doctor" in result.stderr
    assert "Traceback" not in result.stderr
    assert "Traceback" in restore(photo, "--task", "denoise", "-v").stderr


def test_an_interrupt_ends_quietly(
    restore: Lavps, photo: Path, listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lavps_cli.pipeline.run.draw", interrupted)
    result = restore(photo, "--task", "denoise")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "interrupted"
    assert listed(photo.parent) == ["photo.png"]


def test_a_diverging_sampler_says_so(
    restore: Lavps, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lavps_cli.models.tiled import TiledDenoiser

    monkeypatch.setattr(TiledDenoiser, "__call__", lambda self, xt, t: xt * float("nan"))
    result = restore(photo, "--task", "denoise")
    assert result.exit_code == 1
    assert "the sampler diverged" in result.stderr
    assert "this is a bug" not in result.stderr


class Screen:
    """A stand-in for a terminal."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


def test_a_terminal_is_neither_read_nor_written(
    lavps: Lavps, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lavps_cli.cli import output
    from lavps_cli.errors import UsageError

    monkeypatch.setattr(output.sys, "stdin", Screen())
    with pytest.raises(UsageError, match="stdin, which is a terminal"):
        output.read_stdin()
    monkeypatch.setattr(output.sys, "stdout", Screen())
    with pytest.raises(UsageError, match="garble"):
        output.chosen_output([str(photo)], "-", False)
    with pytest.raises(UsageError, match="stdout is a terminal"):
        output.chosen_output(["-"], None, False)
    assert output.chosen_output([str(photo)], None, False) is None
