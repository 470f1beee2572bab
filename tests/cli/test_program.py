"""The program as a shell runs it: pipes, signals, help, and what is imported."""

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PillowImage
from typer.testing import Result

import lavps_cli
from lavps_cli.cli import errors
from lavps_cli.cli.configuration import COMMANDS
from lavps_cli.cli.main import app

Lavps = Callable[..., Result]
PROGRAM = [sys.executable, "-m", "lavps_cli"]
HEAVY = ("torch", "numpy", "scipy", "PIL", "safetensors", "lavps_cli.pipeline", "lavps_cli.core")


def run(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    """Run the program in this process."""
    monkeypatch.setattr(sys, "argv", ["lavps", *args])
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        errors.run(app)
    signal.signal(signal.SIGTERM, handler)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_version(lavps: Lavps) -> None:
    result = lavps("--version")
    assert (result.exit_code, result.stdout) == (0, f"lavps {lavps_cli.__version__}\n")


@pytest.mark.parametrize("args", [("--help",), ("restore", "-h"), ("degrade", "-h")])
def test_help_shows_examples(lavps: Lavps, args: tuple[str, ...]) -> None:
    result = lavps(*args)
    assert result.exit_code == 0
    assert "lavps restore" in result.stdout
    assert "--task deblur --kernel 21" in result.stdout


def test_the_most_used_options_come_first(lavps: Lavps) -> None:
    text = lavps("restore", "-h").stdout
    order = ["--task", "--scale", "--kernel", "--mask", "--output", "Problem", "Sampling"]
    places = [text.index(f" {word} ") for word in order]
    assert places == sorted(places)


COMPLETE = {"_LAVPS_COMPLETE": "complete_bash"}


@pytest.mark.parametrize(
    ("words", "variables", "told"),
    [
        ("restore --help", {}, "--scale"),
        ("config show restore", {}, "preset"),
        ("", COMPLETE | {"COMP_WORDS": "lavps restore -O num_", "COMP_CWORD": "3"}, "num_steps="),
        ("", COMPLETE | {"COMP_WORDS": "lavps restore --model d", "COMP_CWORD": "3"}, "default"),
    ],
)
def test_nothing_heavy_is_imported_to_tell(
    words: str, variables: dict[str, str], told: str
) -> None:
    code = (
        "import sys\nfrom lavps_cli.cli import errors\nfrom lavps_cli.cli.main import app\n"
        f"sys.argv = ['lavps', *{words.split()!r}]\n"
        "try:\n    errors.run(app)\nexcept SystemExit:\n"
        f"    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | variables
    )
    assert result.stderr == "[]\n"
    assert told in result.stdout


def test_values_complete_in_the_shell() -> None:
    def complete(words: str) -> list[str]:
        last = str(len(words.split()) - 1)
        asked = {"_LAVPS_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": last}
        code = "import sys; sys.argv[0] = 'lavps'; from lavps_cli.cli.main import main; main()"
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | asked
        )
        return result.stdout.split()

    assert complete("lavps restore --device c") == ["cpu", "cuda"]
    assert complete("lavps restore --method mg") == ["mgdm", "mgps"]
    assert complete("lavps restore --preset b") == ["balanced", "best"]
    assert "zeta=" in complete("lavps restore --method dps -O z")
    assert "ffhq" in complete("lavps train --dataset f")


def test_nothing_asked_is_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for args in ((), ("models",)):
        assert run(monkeypatch, *args) == 0
        assert "Usage" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("restore", "--xyz"), "lavps restore has no option --xyz."),
        (("restore", "a.png", "--task", "x"), "--task x: expected one of sr, deblur,"),
        (("models", "rm"), "lavps models has no command rm."),
        (("models", "info"), "lavps models info: NAME|DIR is missing."),
        (("restore", "a.png", "--samples", "0"), "--samples 0: expected at least 1."),
        (("restore", "a.png", "--quality", "101"), "--quality 101: expected at most 100."),
        (("restore", "a.png", "--scale", "x"), "--scale x: expected a whole number."),
        (("restore", "a.png", "--gain", "x"), "--gain x: expected a number."),
        (("restore", "a.png", "--task"), "--task takes a value, and there is none."),
        (("restore", "a.png", "--mean=3"), "--mean takes no value."),
        (("restore", "a.png", "--noise", "25"), "more noise than there is picture"),
    ],
)
def test_wrong_command_lines(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: tuple[str, ...],
    message: str,
) -> None:
    assert run(monkeypatch, *args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage error: ")
    assert message in err
    assert "Value error" not in err
    assert len(err.splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("restore a.png --task colourise", "Did you mean colorize?"),
        ("restore a.png --kernal 5", "Did you mean --kernel?"),
        ("restroe a.png", "Did you mean restore?"),
        ("config sho", "Did you mean show?"),
        ("restore a.png --noise 25", "--noise 25/255"),
        ("restore a.png --mean=3", "Write:  --mean"),
        ("train --lr x", "lavps train --help"),
    ],
)
def test_a_slip_is_told_what_was_meant(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str, meant: str
) -> None:
    assert run(monkeypatch, *words.split()) == 2
    assert meant in capsys.readouterr().err


@pytest.mark.parametrize("words", ["", *COMMANDS, "models", "models import", "config show"])
def test_help_names_values_and_no_types_of_the_language(lavps: Lavps, words: str) -> None:
    text = lavps(*words.split(), "--help").stdout
    assert "Usage" in text
    assert not re.search(r"<(bool|int|int range|list\[\w+\]|str|float)>", text)


def test_the_exit_code_is_that_of_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    args = ("degrade", str(tmp_path / "none.png"), "--scale", "2")
    assert run(monkeypatch, *args) == 3
    assert "no such file" in capsys.readouterr().err


def png(scene: Any) -> bytes:
    stream = io.BytesIO()
    PillowImage.fromarray(scene).save(stream, "PNG")
    return stream.getvalue()


def test_pictures_through_stdin_and_stdout(restore: Lavps, lavps: Lavps, scene: Any) -> None:
    made = lavps("degrade", "-", "--scale", "2", stdin=png(scene))
    assert made.exit_code == 0, made.stderr
    result = restore("-", stdin=made.stdout_bytes)
    assert result.exit_code == 0, result.stderr
    with PillowImage.open(io.BytesIO(result.stdout_bytes)) as image:
        assert (image.format, image.size) == ("PNG", (48, 32))
    result = restore("-", "-o", "-", "--format", "jpg", stdin=made.stdout_bytes)
    assert result.stdout_bytes.startswith(b"\xff\xd8")


def test_stdin_to_a_file_may_report_json(restore: Lavps, scene: Any, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    result = restore("-", "--task", "denoise", "--json", "-o", out, stdin=png(scene))
    assert '"input": "-"' in result.stdout
    assert out.exists()
    both = restore("-", "--task", "denoise", "--json", stdin=png(scene))
    assert both.exit_code == 2
    assert "both want stdout" in both.stderr


def test_empty_stdin(restore: Lavps) -> None:
    result = restore("-", "--task", "denoise", stdin=b"")
    assert result.exit_code == 3
    assert result.stdout_bytes == b""
    assert "stdin is empty" in result.stderr


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def test_a_pipe_in_a_real_shell(photo: Path, model_folder: Path, tmp_path: Path) -> None:
    program = " ".join(PROGRAM)
    command = (
        f"set -o pipefail; {program} degrade {photo} --mask centre -o - | "
        f"{program} restore - --model {model_folder} -O num_steps=3 -q > {tmp_path}/out.png"
    )
    result = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=environment()
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    with PillowImage.open(tmp_path / "out.png") as image:
        assert image.size == (48, 32)


def test_a_reader_that_goes_away(photo: Path) -> None:
    program = " ".join(PROGRAM)
    command = f"{program} degrade {photo} --scale 2 -o - | true; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=environment()
    )
    assert (result.stdout, result.stderr) == ("141\n", "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(
    photo: Path, model_folder: Path, listed: Callable[[Path], list[str]], number: int, code: int
) -> None:
    arguments = ["restore", str(photo), "--task", "denoise", "--model", str(model_folder)]
    process = subprocess.Popen(
        [*PROGRAM, *arguments, "-O", "num_steps=100000", "--progress", "plain"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        # A shell has what it runs in the background ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    while "step" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert out == ""
    assert "Traceback" not in err
    assert listed(photo.parent) == ["photo.png"]


def test_names_that_are_no_unicode_come_out_as_they_are(photo: Path) -> None:
    name = b"latin-\xe9.png"
    photo.rename(photo.with_name(os.fsdecode(name)))
    done = subprocess.run(
        [*PROGRAM, "degrade", name, "--scale", "2"],
        cwd=photo.parent,
        env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"},
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"latin-\xe9.degraded.png\n"
