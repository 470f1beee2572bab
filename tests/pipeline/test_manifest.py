"""Jobs as lines of JSON."""

import json
from pathlib import Path
from typing import Any

import pytest

from lavps_cli.errors import UsageError
from lavps_cli.pipeline.job import Job
from lavps_cli.pipeline.manifest import read_manifest
from lavps_cli.pipeline.requests import Output, Problem, Restoration, Sampling, Selection
from lavps_cli.pipeline.results import Pipes

DEFAULTS = Restoration(
    inputs=(),
    problem=Problem(task="sr", scale=4, noise="0.1"),
    sampling=Sampling(seed=3),
    output=Output(quality=80),
)


def read(folder: Path, *lines: Any, stdin: bool = False) -> list[Job]:
    """Return the jobs of a manifest in a folder where `a.png`, `m.png` and `k.npz` are."""
    for name in ("a.png", "m.png", "k.npz"):
        (folder / name).touch()
    text = "".join(f"{x if isinstance(x, str) else json.dumps(x)}\n" for x in lines)
    path = folder / "jobs.jsonl"
    path.write_text(text, errors="surrogateescape")
    request = Selection(manifest="-" if stdin else str(path))
    pipes = Pipes(read=path.read_bytes, write=lambda _: None)
    return read_manifest(Restoration(**(vars(DEFAULTS) | {"select": request})), pipes)


def test_what_a_line_does_not_say_the_command_line_does(tmp_path: Path) -> None:
    (job,) = read(tmp_path, {"input": "a.png", "seed": 7, "bit-depth": "8", "option": {"lr": 0.1}})
    assert job.source.path == f"{tmp_path}/a.png"
    assert job.request.problem == DEFAULTS.problem
    assert job.request.sampling == Sampling(seed=7, settings=("lr=0.1",))
    assert job.request.output == Output(quality=80, bit_depth="8")


def test_lines_are_numbered_as_they_stand(tmp_path: Path) -> None:
    jobs = read(tmp_path, {"input": "a.png"}, "", "  ", {"input": "m.png"})
    assert [job.line for job in jobs] == [1, 4]


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"scale": 2}, Problem(task="sr", scale=2, noise="0.1")),
        ({"task": "denoise"}, Problem(task="denoise", noise="0.1")),
        ({"kernel": 21, "noise": 0.05}, Problem(kernel="21", noise="0.05")),
        ({"kernel": "disk:5"}, Problem(kernel="disk:5", noise="0.1")),
    ],
)
def test_another_kind_of_damage_forgets_the_first(
    tmp_path: Path, keys: dict[str, Any], problem: Problem
) -> None:
    (job,) = read(tmp_path, {"input": "a.png"} | keys)
    assert job.request.problem == problem


def test_paths_are_relative_to_the_manifest(tmp_path: Path, monkeypatch: Any) -> None:
    lines = [
        {"input": "a.png", "mask": "m.png", "output": "out/x.png"},
        {"input": "a.png", "mask": "alpha", "output": "{dir}/x.png"},
        {"input": "a.png", "kernel": "k.npz:first"},
    ]
    masked, clear, blurred = (job.request for job in read(tmp_path, *lines))
    assert (masked.problem.mask, masked.output.output) == (
        f"{tmp_path}/m.png",
        f"{tmp_path}/out/x.png",
    )
    assert clear.problem.mask == "alpha"
    assert blurred.problem.kernel == f"{tmp_path}/k.npz:first"
    monkeypatch.chdir(tmp_path)
    (job,) = read(tmp_path, {"input": "a.png", "mask": "m.png"}, stdin=True)
    assert (job.source.path, job.request.problem.mask) == ("a.png", "m.png")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: no JSON"),
        ("[1]", "line 2: expected an object"),
        ("7", "line 2: expected an object"),
        ("{}", '"input" is missing'),
        ({"input": 7}, '"input" is missing or no text'),
        ({"input": "-"}, "names files"),
        ({"input": "b.png"}, "No such file"),
        ({"input": "nul\0.png"}, "null"),
        ('{"input": "a.png", "seed": 1, "seed": 2}', "given twice"),
        ({"input": "a.png", "sede": 1}, "Did you mean seed?"),
        ({"input": "a.png", "method": "dps"}, "for the command line"),
        ({"input": "a.png", "seed": -1}, "too small"),
        ({"input": "a.png", "seed": True}, "not a whole number"),
        ({"input": "a.png", "seed": "7"}, "not a whole number"),
        ({"input": "a.png", "samples": 0}, "too small"),
        ({"input": "a.png", "task": "sharpen"}, "not allowed"),
        ({"input": "a.png", "compare": 1}, "true or false"),
        ({"input": "a.png", "option": "lr=1"}, "list of texts"),
        ({"input": "a.png", "kernel-intensity": "strong"}, "not a number"),
        ('{"input": "a.png", "seed": 1e999}', "not a whole number"),
        ("[" * 100_000, "line 2"),
        ('{"input": "\udce9"}', "no UTF-8"),
    ],
)
def test_wrong_lines(tmp_path: Path, line: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, {"input": "a.png"}, line)
    assert "1 line is wrong; nothing is started" in caught.value.message
    assert "line 2" in caught.value.hint
    assert message in caught.value.hint


def test_all_wrong_lines_are_told_up_to_a_bound(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, *({"input": i} for i in range(50)))
    assert "50 lines are wrong" in caught.value.message
    assert len(caught.value.hint.splitlines()) == 21


@pytest.mark.parametrize(
    ("more", "message"),
    [({"inputs": ("a.png",)}, "nothing else may"), ({"recursive": True}, "nothing else may")],
)
def test_a_manifest_is_all_there_is(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    select = Selection(manifest=f"{tmp_path}/j", recursive=more.pop("recursive", False))
    with pytest.raises(UsageError, match=message):
        read_manifest(Restoration(**{"inputs": (), "select": select} | more), Pipes(bytes, print))


@pytest.mark.parametrize("key", ["mask", "kernel"])
def test_names_that_no_file_can_have_are_no_crash(tmp_path: Path, key: str) -> None:
    (job,) = read(tmp_path, {"input": "a.png", key: "9" * 5000})
    assert getattr(job.request.problem, key).endswith("9" * 5000)
