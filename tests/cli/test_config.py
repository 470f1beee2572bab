"""Options from files and variables: who wins, what is refused, and that nothing gets lost."""

import json
import random
import re
import signal
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import Result

from lavps_cli.cli import errors
from lavps_cli.cli.configuration import COMMANDS, options_of
from lavps_cli.cli.main import app
from lavps_cli.cli.trust import LISTS, WRITES

Lavps = Callable[..., Result]
Show = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with nobody's settings."""
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
    ("samples", [2, 3, "4", 5], [2, 3, 4, 5]),
    ("kernel-intensity", [0, 0.5, "0.25", 1e-3], [0.0, 0.5, 0.25, 0.001]),
    ("mean", [True, False, True, False], [True, False, True, False]),
    ("option", [["lr=1"], "lr=2", {"lr": 3, "grid": "vp"}, "lr=4 lr_end=5"],
     [["lr=1"], ["lr=2"], ["lr=3", "grid=vp"], ["lr=4", "lr_end=5"]]),
    ("keep-known", [False, True, False, True], [False, True, False, True]),
    ("noise", [0.1, "auto", 0.2, "6/255"], ["0.1", "auto", "0.2", "6/255"]),
    ("output", ["/out/", "out/", "../out/", "x/{stem}.png"],
     ["/out/", "out/", "../out/", "x/{stem}.png"]),
]  # fmt: skip


def toml(value: Any) -> str:
    """Return a value as TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + "}"
    return json.dumps(value)


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
        path.write_text(f"[restore]\n{option} = {toml(value)}\n")

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


@pytest.mark.parametrize(("option", "values", "told"), CASES, ids=[case[0] for case in CASES])
def test_the_command_line_wins(
    monkeypatch: pytest.MonkeyPatch, option: str, values: list[Any], told: list[Any]
) -> None:
    """What the command is called with, with everything else set to something else."""
    monkeypatch.setenv("LAVPS_RESTORE_" + option.upper().replace("-", "_"), str(values[3]))
    command: Any = typer.main.get_command(app)
    each = told[2] if isinstance(told[2], list) else [told[2]]
    given = [word for value in each for word in ([f"--{option}"] if value is True else
             [f"--no-{option}"] if value is False else [f"--{option}", str(value)])]  # fmt: skip
    for words, expected in ((given, told[2]), ([], told[3])):
        with command.make_context("lavps", ["restore", *words]) as root:
            child = root.command.commands["restore"]
            with child.make_context("restore", list(words), parent=root) as context:
                parameter = next(p for p in child.params if f"--{option}" in p.opts)
                value = context.params[parameter.name]
                assert (list(value) if isinstance(value, tuple) else value) == expected


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
        ("[restore]\nseed = {a = 1}", "a table is no value", "texts, numbers"),
        ("[restore]\nseed = " + "9" * 5000, "is no TOML", ""),
        ("[restore]\nseed = 0x" + "f" * 5000, "a number is no value", ""),
        ("[restore]\nkernel-intensity = nan", "is no finite number", ""),
        ("[restore]\nsamples = true", "samples is true", "takes a value"),
        ("[restore]\nsamples = 0", "samples = '0'", "lavps restore --help"),
        ("[restore]\nmean = 'yes'", "mean is a text", "true or false"),
        ("[restore]\ntask = ['sr', 'deblur']", "task = 'sr,deblur'", "Did you mean deblur?"),
        ("[restore]\nconfig = 'x'", "no option 'config'", ""),
        ("[restore]\nsamples = 'x'", "./lavps.toml: [restore] samples = 'x'", "--help"),
        ("[restore]\npreset = 'slow'", "./lavps.toml: [restore] preset = 'slow'", "--help"),
        ("[train]\nlrr = 1", "[train] has no option 'lrr'", "Did you mean lr?"),
        ("[restore]\ntile = 'x'\ntask='sr'", "--tile x", "--tile is set in ./lavps.toml."),
        ("[restore]\nmodel = 'a.py:f'", "would run a program", "--config lavps.toml"),
        ("[benchmark]\nmetric = ['a.py:f']", "would run a program", "--config lavps.toml"),
        ("[restore]\noutput = '/etc/x.png'", "would write outside", "--config lavps.toml"),
        ("[restore]\noutput = '../x.png'", "would write outside", "--config lavps.toml"),
        ("[restore]\noutput = 'link/x.png'", "would write outside", "--config none"),
        ("[restore]\nuncertainty = '.git/hooks/x'", "would write outside", "--config none"),
        ("[train]\npush = 'me/repo'", "would send something away", "--config lavps.toml"),
        ("[train]\nlog = ['jsonl', 'wandb']", "would send something away", ""),
        ("[benchmark]\ndataset = 's3://b/c'", "would talk to another machine", ""),
        ("[restore]\nmask = '//server/m.png'", "would talk to another machine", ""),
        ("[restore]\nray-address = 'host:6379'", "would talk to another machine", ""),
        ("[restore]\nmax-pixels = '9G'", "would lower a guard", ""),
        ("[restore]\noffline = false", "would lower a guard", ""),
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
    Path("link").symlink_to("/tmp")
    Path("lavps.toml").write_text(text)
    code, said = run(monkeypatch, capsys, "restore", "x.png")
    assert code == 2
    assert said.startswith("usage error: ")
    assert what in said
    assert todo in said


def test_a_file_of_ones_own_may_do_what_a_found_one_may_not(
    show: Show, lavps: Lavps, home: Path
) -> None:
    text = "[restore]\nmodel = 'a.py:f'\noutput = '/out/'\n"
    (home / "mine.toml").write_text(text)
    assert show("--config", f"{home}/mine.toml")["model"]["value"] == "a.py:f"
    Path("lavps.toml").write_text(text)
    assert lavps("config", "show").exit_code == 2
    for chosen in ("lavps.toml", "./lavps.toml", str(home / "here" / "lavps.toml")):
        assert show("--config", chosen)["model"] == {"value": "a.py:f", "source": chosen}
    assert show("--config", "none")["model"]["source"] == "default"


READS = {
    "kernel", "mask", "inference", "model", "metric", "grid", "compare", "prior", "from",
    "resume",
} | LISTS  # fmt: skip
"""Options that name what is read."""


def test_every_option_with_a_path_is_known_to_read_or_to_write() -> None:
    """So that a new one that writes is not left to a file found in a folder."""
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name in COMMANDS:
        for key, option in options_of(commands[name]).items():
            if re.search(r"FILE|DIR|PATH", option.metavar or ""):
                assert key in READS | WRITES, f"{name} --{key}"
    assert not READS & WRITES


def test_what_cannot_be_seen_is_not_there(
    show: Show, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of somebody else's home, or without any, there are no settings."""
    monkeypatch.setenv("XDG_CONFIG_HOME", "x" * 300)
    assert show()["preset"]["source"] == "default"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert show()["preset"]["source"] == "default"


def test_variables_are_checked_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAVPS_RESTORE_PRESTE", "fast")
    code, said = run(monkeypatch, capsys, "restore", "x.png")
    assert (code, "LAVPS_RESTORE_PRESET?" in said) == (2, True)
    monkeypatch.delenv("LAVPS_RESTORE_PRESTE")
    monkeypatch.setenv("LAVPS_RESTOR_PRESET", "fast")
    code, said = run(monkeypatch, capsys, "restore", "x.png")
    assert (code, "LAVPS_RESTORE_...?" in said) == (2, True)
    monkeypatch.delenv("LAVPS_RESTOR_PRESET")
    monkeypatch.setenv("LAVPS_RESTORE_SAMPLES", "x")
    code, said = run(monkeypatch, capsys, "restore", "x.png")
    assert (code, "LAVPS_RESTORE_SAMPLES = 'x'" in said) == (2, True)
    monkeypatch.delenv("LAVPS_RESTORE_SAMPLES")
    monkeypatch.setenv("LAVPS_HOME_OF_SOMETHING", "is nobody's business")
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


def test_what_json_tells_makes_the_same_file(show: Show, home: Path) -> None:
    Path("lavps.toml").write_text(
        "[restore]\nsamples = 3\noption = {lr = 0.1}\nmean = true\nkernel-intensity = 0.25\n"
    )
    before = {key: each["value"] for key, each in show().items()}
    Path("lavps.toml").unlink()
    lines = [f"{key} = {toml(value)}" for key, value in before.items() if value is not None]
    (home / "told.toml").write_text("\n".join(["[restore]", *lines]))
    after = show("--config", f"{home}/told.toml")
    assert {key: each["value"] for key, each in after.items()} == before


def test_a_file_to_begin_with_changes_nothing_and_replaces_nothing(
    lavps: Lavps, show: Show, home: Path
) -> None:
    before = show()
    assert lavps("config", "init").stdout == lavps("config", "path").stdout
    assert show() == before
    file = home / "config" / "lavps" / "config.toml"
    text = file.read_text()
    file.write_text(text.replace("# samples = 1", "samples = 4"))
    assert show()["samples"] == {"value": 4, "source": str(file)}
    assert lavps("config", "init").exit_code == 4
    assert "\nsamples = 4" in file.read_text()


@pytest.mark.parametrize("seed", range(60))
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
