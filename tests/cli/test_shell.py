"""Pipes in a real shell: every example that README shows, and what pipes are asked to bear."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as PillowImage

Shell = Callable[..., "subprocess.CompletedProcess[bytes]"]
SERVER = Path(__file__).with_name("fork_server.py")
README = Path(__file__).parents[2] / "README.md"

SELECT = "jq -r 'select(.status==\"ok\").output'"
NAMES = "find . -name '*.jpg' -print0 | lavps restore --files-from - -0"
EXAMPLES = {
    "lavps restore input.png --task deblur --kernel 21": "input.restored.png",
    "lavps restore old.jpg --scale 4": "old.restored.jpg",
    "lavps restore scan.png --mask scratch.png": "scan.restored.png",
    "cat in.png | lavps restore - --task denoise > out.png": "out.png",
    "curl -s $URL | lavps restore - --scale 4 > big.png": "big.png",
    "magick in.tif png:- | lavps restore - --mask hole.png -o - | magick - -resize 50% out.webp": (
        "out.webp"
    ),
    "lavps restore photos/ -r -o fixed/ --task denoise": "fixed/a.png fixed/sub/b.jpg",
    f"lavps restore photos/ -r -o fixed/ --task denoise --json | {SELECT}": "fixed/a.png",
    f"{NAMES} -o '{{dir}}/{{stem}}_x4.png' --scale 4": "old_x4.png photos/sub/b_x4.png",
    f"{NAMES} -o '{{dir}}/{{stem}}_x4.{{ext}}' --scale 4": "old_x4.jpg photos/sub/b_x4.jpg",
    "lavps restore *.png --scale 2 -q | xargs -d '\\n' jpegoptim": "in.restored.png",
    "lavps restore *.png --scale 2 -q | xargs -d '\\n' ls": "in.restored.png",
    "lavps restore --manifest jobs.jsonl -o fixed/ --report report.json": (
        "fixed/in.png report.json"
    ),
    "lavps restore photos/ -r -o fixed/ --scale 2 --shard 3/8": "",
    "lavps degrade in.png --mask centre --noise 0 -o - | lavps restore - -o filled.png": (
        "filled.png"
    ),
}
"""Commands, and files that they leave behind."""
TOOLS = ("curl", "magick", "jq", "jpegoptim", "find", "xargs")


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Iterator[Shell]:
    """Run a script in bash, where `lavps` has the tiny model and takes few steps."""
    place = tmp_path_factory.mktemp("bin")
    program = place / "lavps"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {SERVER} ask {place}/socket "$@"\n')
    program.chmod(0o755)
    settings = {"MODEL": str(model_folder), "DEVICE": "cpu", "DTYPE": "fp32"}
    settings |= {"OPTION": "num_steps=3"}
    environment = os.environ | {f"LAVPS_RESTORE_{name}": text for name, text in settings.items()}
    environment |= {"OMP_NUM_THREADS": "1", "PATH": f"{place}:{os.environ['PATH']}"}
    PillowImage.new("RGB", (16, 16)).save(place / "first.png")
    warm = ["restore", str(place / "first.png"), "--task", "denoise", "-q"]
    command = [sys.executable, str(SERVER), "serve", str(place / "socket"), *warm]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    while not (place / "socket").exists():
        assert server.poll() is None
        time.sleep(0.01)

    def run(script: str, **variables: str) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", script],
            capture_output=True,
            env=environment | variables,
            timeout=120,
        )

    yield run
    server.kill()
    server.wait()


@pytest.fixture
def desk(tmp_path: Path, scene: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that the examples name."""
    image = PillowImage.fromarray(scene)
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    small = image.crop((0, 0, 16, 16))
    for name in ("in.png", "old.jpg", "scan.png", "photos/a.png", "photos/sub/b.jpg"):
        small.save(tmp_path / name)
    image.save(tmp_path / "input.png")
    small.save(tmp_path / "in.tif")
    mask = PillowImage.new("L", (16, 16))
    mask.paste(255, (4, 4, 8, 8))
    mask.save(tmp_path / "scratch.png")
    mask.save(tmp_path / "hole.png")
    (tmp_path / "jobs.jsonl").write_text('{"input": "in.png", "scale": 2}\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def needs(script: str) -> list[str]:
    words = script.replace("|", " ").split()
    return [tool for tool in TOOLS if tool in words and shutil.which(tool) is None]


@pytest.mark.parametrize("script", EXAMPLES)
def test_examples(shell: Shell, desk: Path, script: str) -> None:
    if missing := needs(script):
        pytest.skip(f"no {missing[0]} here")
    if "*.png" in script:  # Pictures of one kind, as after a scan.
        for name in ("input.png", "scan.png", "scratch.png", "hole.png"):
            (desk / name).unlink()
    result = shell(script, URL=(desk / "in.png").as_uri())
    assert result.returncode == 0, result.stderr.decode()
    assert b"Traceback" not in result.stderr
    for name in EXAMPLES[script].split():
        assert (desk / name).stat().st_size > 0
        if not name.endswith("json"):
            with PillowImage.open(desk / name) as image:
                image.load()


def test_what_readme_shows_is_tried() -> None:
    section = README.read_text().partition("### Folders, lists and pipes")[2]
    block = section.partition("```bash\n")[2].partition("```")[0]
    shown = [line.partition(" #")[0].strip() for line in block.splitlines()]
    assert shown
    assert not set(shown) - set(EXAMPLES)


def test_stdout_has_results_and_nothing_else(shell: Shell, desk: Path) -> None:
    quiet = "--task denoise --progress"
    result = shell(f"lavps restore in.png photos/ -r -o out {quiet} json --json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["status"] for line in lines] == ["ok", "ok", "ok"]
    told = [json.loads(line) for line in result.stderr.splitlines() if line.startswith(b"{")]
    assert {line["type"] for line in told} == {"progress"}
    assert [(line["index"], line["count"]) for line in told if line["done"] == line["total"]] == [
        (1, 3),
        (2, 3),
        (3, 3),
    ]
    result = shell(f"lavps restore in.png -o - {quiet} plain")
    assert result.stdout.startswith(b"\x89PNG")
    assert b"step" in result.stderr
    result = shell(f"lavps restore in.png {quiet} none -q")
    assert (result.stdout, result.stderr) == (b"in.restored.png\n", b"")


def test_names_with_newlines_go_through_pipes(shell: Shell, desk: Path) -> None:
    (desk / "in.png").rename(desk / "a\nb \N{CAT FACE}.png")
    result = shell(
        "find . -name 'a*' -print0 | lavps restore --files-from - -0 --task denoise --print0 -q"
        " | xargs -0 -n 1 test -s"
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert (desk / "a\nb \N{CAT FACE}.restored.png").is_file()


def test_a_reader_that_goes_away_ends_the_batch_quietly(shell: Shell, desk: Path) -> None:
    for i in range(30):
        shutil.copy("in.png", f"photos/{i}.png")
    script = "lavps restore photos -r -o out --task denoise -q --json | head -n 1 | wc -l"
    result = shell(f"{script}; echo ${{PIPESTATUS[0]}}")
    assert result.stdout.split() == [b"1", b"141"]
    assert result.stderr == b""
    assert not [path for path in Path("out").rglob("*") if path.name.endswith(".part")]
    again = shell("lavps restore photos -r -o out --task denoise -q --json")
    status = [json.loads(line)["status"] for line in again.stdout.splitlines()]
    assert len(status) == 32
    assert "skipped" in status


def test_exit_codes_reach_the_shell(shell: Shell, desk: Path) -> None:
    (desk / "bad.png").write_text("no picture")
    for script, code in {
        "lavps restore bad.png --task denoise": 3,
        "lavps restore bad.png in.png -o out/ --task denoise": 7,
        "lavps restore bad.png in.png -o more --task denoise --fail-fast": 3,
        "lavps restore in.png -o - --json --task denoise": 2,
        "lavps restore in.png -o in.png -f --task denoise": 4,
        "lavps restore --task denoise": 2,
        "lavps restore in.png --task denoise --manifest jobs.jsonl": 2,
    }.items():
        result = shell(script + " < /dev/null")
        assert (script, result.returncode) == (script, code)
        assert result.stderr


def test_stdin_is_not_read_by_surprise(shell: Shell, desk: Path) -> None:
    # A loop that reads names must not lose them to the program.
    script = (
        "printf 'in.png\\nold.jpg\\n' | while read -r name; do "
        "lavps restore $name --task denoise -q; done"
    )
    assert shell(script).stdout == b"in.restored.png\nold.restored.jpg\n"
