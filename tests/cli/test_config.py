"""Options from files and variables: who wins, what is refused, and that nothing gets lost."""

import json
import random
import signal
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from lavps_cli.cli import errors
from lavps_cli.cli.main import app

Lavps = Callable[..., Result]
Show = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with nobody's settings."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("LAVPS_CONFIG", raising=False)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return tmp_path


@pytest.fixture
def show(lavps: Lavps) -> Show:
    """Return the options of `restore` as they are set."""

    def run(*args: str) -> dict[str, dict[str, Any]]:
        result = lavps("config", "show", "--json", *args)
        assert result.exit_code == 0, result.output
        told: dict[str, dict[str, Any]] = json.loads(result.stdout)["options"]["restore"]
        return told

    return run


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: str
) -> tuple[int, str]:
    """Run the program, and return its exit code and what it says on stderr."""
    monkeypatch.setattr(sys, "argv", ["lavps", *args])
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        errors.run(app)
    signal.signal(signal.SIGTERM, handler)
    out, err = capsys.readouterr()
    assert out == ""
    assert isinstance(caught.value.code, int)
    return caught.value.code, err


CASES: list[tuple[str, list[Any], list[Any]]] = [
    # option, values by rising precedence, and how they are told
    ("preset", ["fast", "best", "balanced", "fast"], ["fast", "best", "balanced", "fast"]),
    ("samples", [2, 3, 4, 5], ["2", "3", "4", "5"]),
    ("mean", [True, False, True, False], [True, False, True, "False"]),
    ("option", [["lr=1"], ["lr=2"], ["lr=3"], "lr=4 lr_end=5"],
     [["lr=1"], ["lr=2"], ["lr=3"], ["lr=4", "lr_end=5"]]),
    ("keep-known", [False, True, False, True], [False, True, False, "True"]),
    ("noise", [0.1, "auto", 0.2, "6/255"], ["0.1", "auto", "0.2", "6/255"]),
]  # fmt: skip


@pytest.mark.parametrize(("option", "values", "told"), CASES, ids=[case[0] for case in CASES])
def test_who_wins(
    show: Show,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    values: list[Any],
    told: list[Any],
) -> None:
    def write(path: Path, value: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"[restore]\n{option} = {json.dumps(value)}\n")

    assert show()[option]["source"] == "default"
    write(home / "config" / "lavps" / "config.toml", values[0])
    assert show()[option] == {"value": told[0], "source": f"{home}/config/lavps/config.toml"}
    write(home / "here" / "lavps.toml", values[1])
    assert show()[option] == {"value": told[1], "source": "./lavps.toml"}
    write(home / "mine.toml", values[2])
    assert show("--config", f"{home}/mine.toml")[option]["value"] == told[2]
    monkeypatch.setenv("LAVPS_CONFIG", f"{home}/mine.toml")
    assert show()[option] == {"value": told[2], "source": f"{home}/mine.toml"}
    variable = f"LAVPS_RESTORE_{option.upper().replace('-', '_')}"
    monkeypatch.setenv(variable, str(values[3]))
    assert show()[option] == {"value": told[3], "source": variable}


def test_the_command_line_wins_over_all_and_the_rest_counts(
    restore: Lavps, photo: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "here" / "lavps.toml").write_text(
        '[restore]\nnoise = 0.2\nseed = 5\ntask = "denoise"\n'
    )
    monkeypatch.setenv("LAVPS_RESTORE_SEED", "6")
    monkeypatch.setenv("LAVPS_RESTORE_MEAN", "true")
    (mean,) = restore(photo, "--samples", "2", "--json").stdout.splitlines()
    assert (json.loads(mean)["seed"], json.loads(mean)["sample"]) == (6, None)
    (line,) = restore(photo, "--seed", "7", "--samples", "2", "--json", "-f").stdout.splitlines()
    told = json.loads(line)
    assert (told["seed"], told["noise"]["sigma"]) == (7, 0.2)


@pytest.mark.parametrize(
    ("text", "what", "todo"),
    [
        ("[restore]\ntasc = 'sr'", "no option 'tasc'", "Did you mean task?"),
        ("[restoe]", "restoe is no command", "Did you mean [restore]?"),
        ("restore = 3", "restore is no table", "[restore]"),
        ("[restore", "is no TOML", "For example"),
        ("[restore]\nkernel = 2026-11-27", "a date is no value", "texts, numbers"),
        ("[restore]\nseed = {a = 1}", "a dict is no value", "texts, numbers"),
        ("[restore]\nconfig = 'x'", "no option 'config'", ""),
        ("[restore]\nsamples = 'x'", "'--samples'", "That is set in ./lavps.toml."),
        ("[restore]\npreset = 'slow'", "'--preset'", "That is set in ./lavps.toml."),
        ("[train]\nlrr = 1", "[train] has no option 'lrr'", "Did you mean lr?"),
        ("[restore]\nmodel = 'a.py:f'", "would run a program", "--config lavps.toml"),
        ("[benchmark]\nmetric = ['a.py:f']", "would run a program", "--config lavps.toml"),
        ("[restore]\noutput = '/etc/x.png'", "would write outside", "--config lavps.toml"),
        ("[restore]\noutput = '../x.png'", "would write outside", "--config lavps.toml"),
        ("[train]\npush = 'me/repo'", "would send something away", "--config lavps.toml"),
        ("[restore]\nseed = " + "[" * 5000, "is no TOML", ""),
        ("#" * (2 << 20), "more than a MiB", ""),
        ("\0", "is no TOML", ""),
    ],
    ids=lambda v: str(v)[:40],
)
def test_what_is_wrong_is_told(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str,
    what: str,
    todo: str,
) -> None:
    Path("lavps.toml").write_text(text)
    code, said = run(monkeypatch, capsys, "restore", "x.png")
    assert code == 2
    assert said.startswith("usage error: ")
    assert what in said
    assert todo in said


def test_a_file_of_ones_own_may_do_what_a_found_one_may_not(show: Show, home: Path) -> None:
    (home / "mine.toml").write_text("[restore]\nmodel = 'a.py:f'\noutput = '/out/'\n")
    assert show("--config", f"{home}/mine.toml")["model"]["value"] == "a.py:f"


def test_variables_are_checked_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAVPS_RESTORE_PRESTE", "fast")
    code, said = run(monkeypatch, capsys, "restore", "x.png")
    assert (code, "LAVPS_RESTORE_PRESET?" in said) == (2, True)
    monkeypatch.delenv("LAVPS_RESTORE_PRESTE")
    monkeypatch.setenv("LAVPS_CONFIG", "nowhere.toml")
    code, said = run(monkeypatch, capsys, "restore", "x.png")
    assert (code, "LAVPS_CONFIG nowhere.toml" in said) == (2, True)


def test_what_is_shown_is_a_file_of_the_same_settings(lavps: Lavps, show: Show, home: Path) -> None:
    Path("lavps.toml").write_text(
        '[restore]\nkernel = 21\noption = {lr = 0.1}\nmean = true\noutput = "ü \\"{stem}\\".png"\n'
    )
    text = lavps("config", "show").stdout
    before = {key: each["value"] for key, each in show().items()}
    Path("lavps.toml").unlink()
    (home / "shown.toml").write_text(text)
    after = {key: each["value"] for key, each in show("--config", f"{home}/shown.toml").items()}
    assert after == before
    assert tomllib.loads(lavps("config", "show", "restore").stdout)["restore"]["preset"]


@pytest.mark.parametrize("seed", range(40))
def test_whatever_a_file_says_nothing_breaks(lavps: Lavps, seed: int) -> None:
    chance = random.Random(seed)
    values = [
        "1",
        "-0.5",
        "true",
        '"x"',
        "[1, [2]]",
        "{a = 1}",
        "1e400",
        "nan",
        "2026-11-27",
        '"\\u0000"',
    ]
    keys = ["seed", "noise", "option", "mean", "kernel", "xyz", '"a b"', "samples", '"="']
    text = "[restore]\n" + "".join(
        f"{chance.choice(keys)} = {chance.choice(values)}\n" for _ in range(chance.randrange(4))
    )
    content = bytearray(text.encode())
    for _ in range(chance.randrange(3)):
        content[chance.randrange(len(content))] = chance.randrange(256)
    Path("lavps.toml").write_bytes(content)
    result = lavps("config", "show")
    assert result.exit_code in (0, 2), content
    assert "Traceback" not in result.output
