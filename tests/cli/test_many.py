"""Many pictures: folders, lists and manifests, resumed where they stopped, nothing lost."""

import json
import signal
import subprocess
import sys
import time
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
Bytes = npt.NDArray[np.uint8]
DENOISE = ("--task", "denoise", "--noise", "0.1", "-q")
JOURNAL = ".lavps/journal.jsonl"


@pytest.fixture
def album(tmp_path: Path, scene: Bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four small pictures, one below the others, and the work is done beside them."""
    album = tmp_path / "album"
    for i, name in enumerate(("p1.png", "p2.png", "p10.jpg", "sub/p1.png")):
        path = album / name
        path.parent.mkdir(parents=True, exist_ok=True)
        PillowImage.fromarray(np.roll(scene, i, 1)[:16, :16]).save(path)
    monkeypatch.chdir(tmp_path)
    return album


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder, without the journal."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".lavps" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def entries(path: Path | str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_a_folder_keeps_its_tree(restore: Lavps, album: Path) -> None:
    result = restore("album", "-r", "-o", "out", *DENOISE)
    assert result.exit_code == 0, result.output
    expected = ["out/p1.png", "out/p2.png", "out/p10.jpg", "out/sub/p1.png"]
    assert result.stdout.splitlines() == expected
    assert sorted(contents(Path("out"))) == sorted(name[4:] for name in expected)
    lines = entries(f"out/{JOURNAL}")
    assert [line["output"] for line in lines] == [name[4:] for name in expected]
    assert {line["status"] for line in lines} == {"ok"}


def test_many_give_what_one_gives(restore: Lavps, album: Path) -> None:
    restore("album", "-r", "-o", "out", *DENOISE)
    restore("album", "-r", "-o", "batched", *DENOISE, "--batch-size", "3")
    for name, content in contents(Path("out")).items():
        alone = restore(f"album/{name}", "-o", "alone.png", "-f", *DENOISE, "--format", "png")
        assert alone.exit_code == 0
        with PillowImage.open("alone.png") as a, PillowImage.open(f"out/{name}") as b:
            if name.endswith("png"):
                assert np.array_equal(np.asarray(a), np.asarray(b))
        # Of a batch all is the same but for rounding.
        with PillowImage.open(f"out/{name}") as a, PillowImage.open(f"batched/{name}") as b:
            difference = np.asarray(a).astype(int) - np.asarray(b)
            assert np.abs(difference).max() <= 1
        assert content


def test_the_same_command_again_does_nothing(
    restore: Lavps, lines: Lines, album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("album", "-r", "-o", "out/", *DENOISE, "--json")
    first = lines(restore(*command))
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.*")}
    monkeypatch.setattr("lavps_cli.pipeline.run.draw", None)
    again = restore(*command)
    assert again.exit_code == 0
    assert [line["status"] for line in lines(again)] == ["skipped"] * 4
    assert [line["output"] for line in lines(again)] == [line["output"] for line in first]
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.*")} == before
    # Moved, and its pictures touched: known by content.
    Path("out").rename("elsewhere")
    (album / "p1.png").touch()
    moved = restore("album", "-r", "-o", "elsewhere/", *DENOISE, "--json")
    assert [line["status"] for line in lines(moved)] == ["skipped"] * 4


def test_only_what_is_missing_is_done(restore: Lavps, album: Path) -> None:
    command = ("album", "-r", "-o", "out/", *DENOISE)
    restore(*command)
    whole = contents(Path("out"))
    Path("out/p2.png").unlink()
    Path("out/sub/p1.png").write_bytes(b"edited")
    PillowImage.new("RGB", (16, 16)).save("album/p1.png")
    result = restore(*command)
    assert result.exit_code == 7
    assert result.stdout == "out/p2.png\n"
    assert "out/p1.png exists and was not made by these settings" in result.stderr
    assert "out/sub/p1.png exists and was not made by these settings" in result.stderr
    assert contents(Path("out")) == whole | {"sub/p1.png": b"edited"}
    again = restore(*command, "--existing", "overwrite")
    assert again.exit_code == 0
    assert len(again.stdout.splitlines()) == 4


def test_other_settings_do_not_count_as_done(restore: Lavps, lines: Lines, album: Path) -> None:
    restore("album/p1.png", "album/p2.png", "-o", "out/", *DENOISE)
    for more in (("--seed", "1"), ("--compare",), ("--quality", "50"), ("-O", "lr=0.1")):
        result = restore("album/p1.png", "-o", "out/", *DENOISE, *more)
        assert (more, result.exit_code) == (more, 4)
    other = restore("album/p1.png", "-o", "out/{stem}_b.png", *DENOISE)
    assert other.stdout == "out/p1_b.png\n"
    skipped = restore("album/p1.png", "-o", "out/", *DENOISE, "--json", "--device", "cpu")
    assert lines(skipped)[0]["status"] == "skipped"
    kept = restore("album/p1.png", "-o", "out/", *DENOISE, "--seed", "1", "--existing", "skip")
    assert (kept.exit_code, kept.stdout) == (0, "")


def test_names_that_collide(restore: Lavps, album: Path) -> None:
    PillowImage.open("album/p1.png").save("album/p1.bmp")
    result = restore("album", "-o", "out/", "--format", "png", *DENOISE)
    names = ["p1.bmp.png", "p1.png.png", "p2.png", "p10.png"]
    assert sorted(contents(Path("out"))) == sorted(names)
    refused = restore("album/p1.png", "album/sub/p1.png", "-o", "flat/", *DENOISE)
    assert refused.exit_code == 2
    assert "would be the result of" in refused.stderr
    assert not Path("flat").exists()
    assert result.exit_code == 0


def test_one_bad_file_is_told_at_the_end_and_tried_again(
    restore: Lavps, lines: Lines, album: Path
) -> None:
    good = Path("album/p2.png").read_bytes()
    Path("album/p2.png").write_bytes(good[:60])
    Path("album/gone.png").symlink_to("nowhere.png")
    command = ("album/*.png", "-o", "out/", "--task", "denoise", "--report", "report.json")
    result = restore(*command)
    assert result.exit_code == 7
    ending = f"2 of 3 failed (2 unreadable). Details: {Path.cwd()}/out/{JOURNAL}\n"
    assert result.stderr.endswith(ending)
    document = json.loads(Path("report.json").read_text())
    told = {key: document[key] for key in ("pictures", "failed", "exit", "reasons")}
    assert told == {"pictures": 3, "failed": 2, "exit": 7, "reasons": {"unreadable": 2}}
    assert [line["status"] for line in document["results"]] == ["error", "ok", "error"]
    kept = sorted(line["status"] for line in entries(f"out/{JOURNAL}"))
    assert kept == ["error", "error", "ok"]
    Path("album/p2.png").write_bytes(good)
    Path("album/gone.png").unlink()
    again = restore(*command, "-f", "--json")
    assert again.exit_code == 0


def test_the_first_failure_may_stop_it(restore: Lavps, album: Path) -> None:
    result = restore("none.png", "album/p1.png", "-o", "out/", *DENOISE, "--fail-fast")
    assert (result.exit_code, result.stdout) == (3, "")
    assert contents(Path("out")) == {}


def test_shards_share_the_work(restore: Lavps, album: Path) -> None:
    for i in (1, 2, 3):
        assert restore("album", "-r", "-o", "out", *DENOISE, "--shard", f"{i}/3").exit_code == 0
    restore("album", "-r", "-o", "whole", *DENOISE)
    assert contents(Path("out")) == contents(Path("whole"))
    assert len(entries(f"out/{JOURNAL}")) == 4


def test_several_devices_share_the_work(
    restore: Lavps,
    lavps: Lavps,
    lines: Lines,
    album: Path,
    model_folder: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (album / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nbad")
    base = ("album", "-r", *DENOISE)
    fast = ("--model", model_folder, "--dtype", "fp32", "-O", "num_steps=4")
    result = lavps("restore", *base, "-o", "out", *fast, "--gpus", "cpu,cpu", "--json")
    assert result.exit_code == 7, result.output
    assert sorted(line["status"] for line in lines(result)) == ["error", "ok", "ok", "ok", "ok"]
    assert capfd.readouterr().err == ""  # Processes end without a word.
    restore(*base, "-o", "whole")
    assert contents(Path("out")) == contents(Path("whole"))
    for wrong, code in (("0", 2), ("quantum", 2), ("64", 6)):
        refused = lavps("restore", *base, "-o", "no", *fast, "--gpus", wrong)
        assert (wrong, refused.exit_code) == (wrong, code)


def test_a_manifest(restore: Lavps, lines: Lines, album: Path, scene: Bytes) -> None:
    PillowImage.new("L", (16, 16)).save(album / "hole.png")
    with PillowImage.open(album / "hole.png") as mask:
        mask.paste(255, (4, 4, 8, 8))
        mask.save(album / "hole.png")
    (album / "jobs.jsonl").write_text(
        '{"input": "p1.png", "output": "../made/here/one.png", "mask": "hole.png", "seed": 7}\n\n'
        '{"input": "p2.png", "task": "sr", "scale": 2, "noise": 0.05}\n'
    )
    result = restore("--manifest", "album/jobs.jsonl", *DENOISE[:4], "--json")
    assert result.exit_code == 0, result.stderr
    one, two = lines(result)
    assert (one["task"], one["seed"], one["output"]) == ("inpaint", 7, "album/../made/here/one.png")
    assert (two["task"], two["size_out"]) == ("sr", [32, 32])
    assert two["output"] == "album/p2.restored.png"
    again = restore("--manifest", "album/jobs.jsonl", *DENOISE[:4], "--json")
    assert [line["status"] for line in lines(again)] == ["skipped", "skipped"]


def test_a_manifest_is_checked_before_anything_is_done(restore: Lavps, album: Path) -> None:
    wrong = {
        '{"input": "p1.png", "sede": 7}': "Did you mean seed?",
        '{"input": "p9.png"}': "No such file",
        "not json": "no JSON",
        '{"input": "p1.png", "scale": 17}': "--scale 17",
        '{"input": "p1.png", "option": ["num_stepps=3"]}': "num_stepps",
        '{"input": "p1.png", "device": "cpu"}': "",
    }
    for line, message in wrong.items():
        (album / "jobs.jsonl").write_text(f'{{"input": "p2.png"}}\n{line}\n')
        result = restore("--manifest", "album/jobs.jsonl", *DENOISE, "-o", "out/")
        assert (line, result.exit_code) == (line, 2)
        assert "line 2" in result.stderr
        assert message in result.stderr
        assert result.stdout == ""
    assert not Path("out").exists()


def test_masks_of_a_folder(restore: Lavps, lines: Lines, album: Path) -> None:
    for name, side in (("p1", 4), ("p2", 6), ("sub/p1", 8)):
        mask = np.zeros((16, 16), np.uint8)
        mask[:side, :side] = 255
        path = Path("masks") / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PillowImage.fromarray(mask).save(path)
    result = restore("album", "-r", "--mask", "masks", "-o", "out", "--json", "--exclude", "*.jpg")
    assert result.exit_code == 0, result.stderr
    for line, side in zip(lines(result), (4, 6, 8), strict=True):
        before, after = (np.asarray(PillowImage.open(line[key])) for key in ("input", "output"))
        changed = (before != after).any(2)
        assert not changed[side:].any()
        assert not changed[:, side:].any()
        assert changed[:side, :side].any()
    lacking = restore("album/p10.jpg", "--mask", "masks", "-o", "out/")
    assert lacking.exit_code == 3
    assert "masks/p10.png" in lacking.stderr


def test_a_disk_that_fills_up(restore: Lavps, album: Path, request: pytest.FixtureRequest) -> None:
    PillowImage.effect_noise((30, 30), 90).convert("RGB").save(album / "p3.png")
    request.getfixturevalue("full_disk")
    result = restore("album", "-o", "out/", *DENOISE)
    assert result.exit_code == 7
    assert "out/p3.png cannot be written: File too large" in result.stderr
    found = contents(Path("out"))
    assert not any(name.endswith(".part") for name in found)
    for content in found.values():
        assert content.startswith((b"\x89PNG", b"\xff\xd8"))


def kill_at(process: "subprocess.Popen[bytes]", journal: Path, lines: int) -> None:
    """Kill a process when a journal has so many lines."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if journal.exists() and journal.read_bytes().count(b"\n") >= lines:
            process.kill()
            break
        time.sleep(0.002)
    process.wait()


def test_a_kill_costs_at_most_the_picture_in_work(
    restore: Lavps, album: Path, scene: Bytes, model_folder: Path
) -> None:
    for i in range(6):
        PillowImage.fromarray(np.roll(scene, i, 1)[:16, :16]).save(album / f"k{i}.png")
    command = ["restore", "album", "-r", "-o", "out/", *DENOISE, "--model", str(model_folder)]
    settings = ["--device", "cpu", "--dtype", "fp32", "-O", "num_steps=4"]
    program = [sys.executable, "-m", "lavps_cli", *command, *settings]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kill_at(process, Path("out") / JOURNAL, 4)
    assert process.returncode in (0, -signal.SIGKILL)
    last = restore("album", "-r", "-o", "out/", *DENOISE)
    assert last.exit_code == 0, last.stderr
    assert len(last.stdout.splitlines()) <= 10 - 3
    restore("album", "-r", "-o", "whole/", *DENOISE)
    assert contents(Path("out")) == contents(Path("whole"))
