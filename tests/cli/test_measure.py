import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage
from typer.testing import Result

from lavps_cli import catalog
from lavps_cli.pipeline.auto import read_curves

Lavps = Callable[..., Result]
Lines = Callable[[Result], list[dict[str, Any]]]
TIMES = ("seconds", "peak_mb")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        pixels = rng.integers(0, 255, (4, 5, 3), dtype=np.uint8)
        PillowImage.fromarray(pixels).resize((40, 32)).save(folder / f"p{i}.png")
    return folder


@pytest.fixture
def arguments(photos: Path, model_folder: Path, tmp_path: Path) -> list[str]:
    return [
        "--dataset", str(photos), "--size", "16", "--model", str(model_folder), "--device", "cpu",
        "--dtype", "fp32", "--metrics", "psnr,ssim", "-o", str(tmp_path / "run"), "--tasks",
        "deblur:3@0.5,inpaint:rect", "--ood", "none", "-O", "num_steps=4", "--images", "3",
    ]  # fmt: skip


def records(folder: Path) -> list[dict[str, Any]]:
    """Return the records of a run without what differs from run to run."""
    found = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in TIMES} for record in found]


def test_benchmark(lavps: Lavps, lines: Lines, arguments: list[str], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = lavps("benchmark", *arguments, "--json", "--html", page)
    assert result.exit_code == 0, result.output
    (told,) = lines(result)
    assert told["complete"]
    cells = {(e["task"], e["method"]): e["row"] for e in told["entries"]}
    assert set(cells) == {
        (t, m) for t in ("deblur:3@0.5", "inpaint:rect") for m in ("lavps", "mgdm")
    }
    for (_, method), row in cells.items():
        assert row["n"] == 3
        assert row["seconds"] > 0
        assert row["units"] == pytest.approx(row["nfe"] + 2 * row["nbe"])
        assert row["units"] > 0
        assert (row["acceptance"] is not None) == (method == "lavps")
        low, high = (row["metrics"]["psnr"][k] for k in ("low", "high"))
        assert low <= row["metrics"]["psnr"]["mean"] <= high
    assert {m["name"] for m in told["metrics"]} == {"psnr", "ssim"}
    assert told["environment"]["device"].startswith("cpu")
    found = records(tmp_path / "run")
    assert [(r["task"], r["method"]) for r in found[:4]] == list(cells)  # They take turns.
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 3 * 2 * 4
    assert "http" not in text.replace("http://www.w3.org", "")
    kept = {path.name for path in (tmp_path / "run" / "pictures").iterdir()}
    assert len([name for name in kept if name.endswith("-clean.png")]) == 3


def test_the_same_command_measures_nothing_again(
    lavps: Lavps, arguments: list[str], tmp_path: Path
) -> None:
    first = lavps("benchmark", *arguments)
    content = (tmp_path / "run" / "records.jsonl").read_bytes()
    second = lavps("benchmark", *arguments)
    assert (tmp_path / "run" / "records.jsonl").read_bytes() == content
    assert second.stdout == first.stdout
    more = lavps("benchmark", *arguments, "--seed", "1")
    assert more.exit_code == 0
    assert (tmp_path / "run" / "records.jsonl").read_bytes().startswith(content)
    assert len(records(tmp_path / "run")) == 2 * 12


def test_a_killed_run_goes_on_to_the_records_of_an_uninterrupted_one(
    lavps: Lavps, arguments: list[str], tmp_path: Path
) -> None:
    whole = [a if a != str(tmp_path / "run") else str(tmp_path / "whole") for a in arguments]
    assert lavps("benchmark", *whole).exit_code == 0
    for number, at_least in ((signal.SIGKILL, 2), (signal.SIGINT, 6)):
        file = tmp_path / "run" / "records.jsonl"
        process = subprocess.Popen(
            [sys.executable, "-m", "lavps_cli", "benchmark", *arguments, "--threads", "1"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while process.poll() is None:
            if file.exists() and len(file.read_bytes().splitlines()) >= at_least:
                process.send_signal(number)
                break
            time.sleep(0.005)
        code = process.wait(60)
        assert code in (-number, 128 + number, 0)
    assert lavps("benchmark", *arguments).exit_code == 0
    assert records(tmp_path / "run") == records(tmp_path / "whole")


def test_too_little_time_gives_every_cell_one_image(
    lavps: Lavps, lines: Lines, arguments: list[str]
) -> None:
    result = lavps("benchmark", *arguments, "--max-time", "0.01s", "--json")
    assert result.exit_code == 0
    (told,) = lines(result)
    assert not told["complete"]
    assert told["missing"] == 8
    assert [e["row"]["n"] for e in told["entries"]] == [1, 1, 1, 1]
    assert "the same command goes on" in result.stderr


def test_budgets_choose_by_validation(
    lavps: Lavps, lines: Lines, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("lavps", "mgdm"):
        few = replace(catalog.SAMPLERS[name], steps=(4, 6))
        monkeypatch.setitem(catalog.SAMPLERS, name, few)
    given = [a for a in arguments if a not in ("-O", "num_steps=4")]
    result = lavps("benchmark", *given, "--budget", "20s", "--budget", "0.00001s", "--json")
    assert result.exit_code == 8  # Nothing fits into the second.
    (told,) = lines(result)
    generous = [e for e in told["entries"] if e["budget"] == 20]
    assert all(e["row"]["n"] == 3 and e["row"]["seconds"] <= 20 for e in generous)
    assert all(e["row"] is None for e in told["entries"] if e["budget"] != 20)
    assert len(told["failed"]) == 4


def test_methods_with_models_of_their_own(
    lavps: Lavps, lines: Lines, arguments: list[str], model_folder: Path, conditional_folder: Path
) -> None:
    methods = f"mgdm,conditional={conditional_folder},lavps,lavps={model_folder}"
    result = lavps("benchmark", *arguments, "--methods", methods, "--json")
    assert result.exit_code == 0, result.output
    (told,) = lines(result)
    seen = {(e["method"], e["task"]): e["seen"] for e in told["entries"]}
    assert [name for name, _ in list(seen)[:4]] == [
        "mgdm", "conditional", "lavps", f"lavps={model_folder}",
    ]  # fmt: skip
    assert seen["conditional", "deblur:3@0.5"]
    assert seen["conditional", "inpaint:rect"] is False
    rows = {e["method"]: e["row"] for e in told["entries"]}
    assert rows["conditional"]["nbe"] == 0
    assert rows["lavps"]["metrics"] == rows[f"lavps={model_folder}"]["metrics"]


def test_methods_of_one_number_of_steps(
    lavps: Lavps, lines: Lines, arguments: list[str], flow_folder: Path
) -> None:
    given = [a for a in arguments if a not in ("-O", "num_steps=4")]
    methods = f"aps={flow_folder},latino"
    for more in ([], ["--budget", "20s"]):
        result = lavps("benchmark", *given, "--methods", methods, "--json", *more)
        assert result.exit_code == 0, result.output
        (told,) = lines(result)
        assert {e["method"]: e["row"]["nfe"] for e in told["entries"]} == {"aps": 1, "latino": 9}


def test_thresholds(lavps: Lavps, arguments: list[str]) -> None:
    few = [*arguments, "-q"]
    good = lavps("benchmark", *few, "--fail-under", "deblur.psnr=0", "--fail-under", "mgdm:inpaint:rect.ssim=-1")  # noqa: E501  # fmt: skip
    assert good.exit_code == 0
    bad = lavps("benchmark", *few, "--fail-under", "deblur.psnr=99")
    assert bad.exit_code == 8
    assert "missed: deblur.psnr=99" in bad.stderr
    for wrong in ("deblur=3", "deblur.psnr", "deblur.psnr=x"):
        assert lavps("benchmark", *few, "--fail-under", wrong).exit_code == 2
    unknown = lavps("benchmark", *few, "--fail-under", "deblur.psn=1")
    assert unknown.exit_code == 2
    assert "psnr" in unknown.stderr


def test_comparing_with_an_earlier_run(
    lavps: Lavps, lines: Lines, arguments: list[str], tmp_path: Path
) -> None:
    lavps("benchmark", *arguments)
    again = [a if a != str(tmp_path / "run") else str(tmp_path / "new") for a in arguments]
    result = lavps("benchmark", *again, "--compare", tmp_path / "run", "--json")
    (told,) = lines(result)
    for entry in told["entries"]:
        gain = entry["gains"]["psnr"]
        assert (gain["n"], gain["gain"]) == (3, 0.0)
    assert lavps("benchmark", *again, "--compare", tmp_path / "nowhere").exit_code == 2


def test_foreign_records_are_left_alone(lavps: Lavps, arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    file = tmp_path / "run" / "records.jsonl"
    file.write_text('{"a": 1}\n{"b": 2}\n')
    result = lavps("benchmark", *arguments)
    assert result.exit_code == 3
    assert "line 1" in result.stderr
    assert file.read_text() == '{"a": 1}\n{"b": 2}\n'


def test_a_metric_that_raises_and_a_picture_that_is_none(
    lavps: Lavps, lines: Lines, arguments: list[str], photos: Path, tmp_path: Path
) -> None:
    (photos / "p9.png").write_bytes(b"\x89PNG no more")
    PillowImage.new("RGB", (8, 8)).save(photos / "small.png")
    mine = tmp_path / "mine.py"
    mine.write_text("def broken(xhat, x):\n    return 1 / 0\n")
    result = lavps("benchmark", *arguments, "--metric", f"{mine}:broken", "--images", "9", "--json")
    assert result.exit_code == 0, result.output
    assert "p9.png" in result.stderr
    assert "smaller than --size" in result.stderr
    (told,) = lines(result)
    row = told["entries"][0]["row"]
    assert row["metrics"]["broken"]["mean"] is None
    assert "ZeroDivisionError" in row["metrics"]["broken"]["reason"]
    assert row["metrics"]["psnr"]["n"] == 4


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (("--methods", "lavp"), 2, "lavps"),
        (("--methods", "mgdm,mgdm"), 2, "twice"),
        (("--methods", "conditional"), 2, "--stage conditional"),
        (("--methods", "mgdm=nowhere"), 5, "nowhere"),
        (("--tasks", "deblr"), 2, "no such kind"),
        (("--dataset", "nowhere"), 5, "no such folder"),
        (("--budget", "soon"), 2, "expected a time"),
        (("--size", "500"), 2, "smaller --size"),
        (("--metrics", "sism"), 2, "ssim"),
    ],
)
def test_mistakes(
    lavps: Lavps, arguments: list[str], more: tuple[str, ...], code: int, words: str
) -> None:
    result = lavps("benchmark", *arguments, *more)
    assert result.exit_code == code
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_the_bundled_pictures_are_a_dozen_and_need_nothing(
    lavps: Lavps, lines: Lines, model_folder: Path, tmp_path: Path
) -> None:
    result = lavps(
        "benchmark", "--model", model_folder, "--size", "16", "--tasks", "sr:2", "--device", "cpu",
        "--ood", "none", "-O", "num_steps=4", "--metrics", "psnr", "-o", tmp_path / "run", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (told,) = lines(result)
    assert told["entries"][0]["row"]["n"] == 8


GRID = [
    {"num_steps": 8, "grad_steps_start": 1, "grad_steps_end": end, "switch_ratio": r}
    for end in (0, 1)
    for r in (0.6, 0.7)
]


def calibrate(
    lavps: Lavps, photos: Path, model_folder: Path, run: Path, *more: str | Path
) -> Result:
    grid = run.parent / "grid.json"
    grid.write_text(json.dumps(GRID))
    return lavps(
        "calibrate-speedup", "--task", "deblur:3@0.5", "--dataset", photos, "--size", "16",
        "--model", model_folder, "--device", "cpu", "--dtype", "fp32", "--metric", "psnr",
        "--margin", "3", "--grid", grid, "-o", run, *more,
    )  # fmt: skip


def test_calibrate_speedup(
    lavps: Lavps, lines: Lines, photos: Path, model_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    plot, page = tmp_path / "fronts.svg", tmp_path / "page.html"
    result = calibrate(
        lavps, photos, model_folder, tmp_path / "run", "--json", "--plot", plot, "--html", page,
        "--training-time", "1h",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (told,) = lines(result)
    assert told["complete"]
    assert {m: len(p) for m, p in told["points"].items()} == {"mgdm": 4, "lavps": 4}
    assert told["saved"]["shared"] > 0
    assert told["saved"]["factor"] > 1
    assert told["matches"]
    for match, images in zip(told["matches"], told["break_even"], strict=True):
        assert match["predicted"] == pytest.approx(
            match["reference_units"] / match["candidate_units"]
        )
        assert match["low"] <= match["speedup"] <= match["high"]
        assert (images is None) == (match["speedup"] <= 1)
    assert "<svg" in plot.read_text()
    assert "<svg" in page.read_text()

    picture = sorted(photos.iterdir())[0]
    base = ("restore", picture, "--kernel", "3", "--model", model_folder, "--device", "cpu",
            "--dtype", "fp32", "-v", "-o", tmp_path / "out.png", "-f")  # fmt: skip
    fits = lavps(*base, "--budget", "100s")
    assert fits.exit_code == 0, fits.output
    assert "by calibration" in fits.stderr
    short = lavps(*base, "--budget", "0.00001s")
    assert short.exit_code == 2
    assert "the cheapest settings take" in short.stderr
    other = lavps(*base[:3], "5", *base[4:], "--task", "deblur", "--method", "mgdm", "--budget", "100s")  # noqa: E501  # fmt: skip
    assert "by calibration" in other.stderr


def test_a_calibration_goes_on(
    lavps: Lavps, photos: Path, model_folder: Path, tmp_path: Path
) -> None:
    first = calibrate(lavps, photos, model_folder, tmp_path / "run", "--no-save")
    content = (tmp_path / "run" / "records.jsonl").read_bytes()
    second = calibrate(lavps, photos, model_folder, tmp_path / "run", "--no-save")
    assert (tmp_path / "run" / "records.jsonl").read_bytes() == content
    assert second.stdout == first.stdout


def test_budget_without_a_calibration_probes(
    lavps: Lavps, photos: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    for name in ("lavps", "mgdm"):
        few = replace(catalog.SAMPLERS[name], steps=(4, 6))
        monkeypatch.setitem(catalog.SAMPLERS, name, few)
    result = lavps(
        "restore", sorted(photos.iterdir())[0], "--kernel", "3", "--model", model_folder,
        "--device", "cpu", "--budget", "60s", "-v", "-o", tmp_path / "out.png",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "by probe" in result.stderr
    both = lavps(
        "restore", sorted(photos.iterdir())[0], "--kernel", "3", "--model", model_folder,
        "--device", "cpu", "--budget", "60s", "-O", "num_steps=4", "-o", tmp_path / "b.png",
    )  # fmt: skip
    assert both.exit_code == 2
    assert "chooses num_steps" in both.stderr


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ("[1]", "settings are objects"),
        ("{}", "neither paper, quick"),
        ('[{"num_step": 3}]', "no option 'num_step'"),
        ("no", "neither paper, quick"),
    ],
)
def test_grids_that_are_none(
    lavps: Lavps, photos: Path, model_folder: Path, tmp_path: Path, grid: str, words: str
) -> None:
    path = tmp_path / "mine.json"
    path.write_text(grid)
    result = calibrate(lavps, photos, model_folder, tmp_path / "run", "--grid", path)
    assert result.exit_code == 2
    assert words in result.stderr


def test_evaluate_folders(lavps: Lavps, lines: Lines, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for i in range(4):
        with PillowImage.open(photos / f"p{i}.png") as picture:
            picture.point(lambda v: min(v + 10, 255)).save(out / f"p{i}.restored.png")
    PillowImage.new("RGB", (40, 32)).save(out / "extra.png")
    PillowImage.new("RGB", (20, 16)).save(out / "p4.png")
    result = lavps("evaluate", out, photos, "--metrics", "psnr,ssim", "--json")
    assert result.exit_code == 7
    (told,) = lines(result)
    assert [pair["metrics"]["psnr"] > 25 for pair in told["pairs"]] == [True] * 4
    assert told["metrics"]["psnr"]["low"] <= told["metrics"]["psnr"]["mean"]
    assert [m for m in told["missing"] if "extra.png" in m]
    assert [m for m in told["missing"] if "p5.png" in m]
    assert "20x16" in told["failed"][0]["error"]
    scaled = lavps("evaluate", out, photos, "--metrics", "psnr", "--resize", "--json")
    assert [n for pair in lines(scaled)[0]["pairs"] for n in pair["notes"] if "20" not in n]
    assert lavps("evaluate", out, photos).stdout.splitlines()[0].startswith("metric")


def test_evaluate_files(lavps: Lavps, lines: Lines, photos: Path, tmp_path: Path) -> None:
    with PillowImage.open(photos / "p0.png") as picture:
        alpha = picture.convert("RGBA")
        alpha.putalpha(255)
        alpha.save(tmp_path / "a.png")
        picture.convert("L").save(tmp_path / "grey.png")
    same = lavps("evaluate", tmp_path / "a.png", photos / "p0.png", "--metrics", "ssim", "--json")
    assert same.exit_code == 0
    assert lines(same)[0]["metrics"]["ssim"]["mean"] == 1.0
    assert "transparent" in lines(same)[0]["pairs"][0]["notes"][0]
    grey = lavps("evaluate", tmp_path / "grey.png", photos / "p0.png", "--metrics", "psnr")
    assert grey.exit_code == 0
    cut = lavps("evaluate", tmp_path / "a.png", photos / "p0.png", "--border", "4", "--json")
    assert lines(cut)[0]["about"][0]["cropped"] == "4 pixels on every side"
    for bad in (("no", photos), (photos, tmp_path / "a.png")):
        assert lavps("evaluate", *bad).exit_code in (2, 3)


def test_coverage(lavps: Lavps, lines: Lines, arguments: list[str]) -> None:
    few = [*arguments, "--images", "1", "--methods", "mgdm", "--tasks", "deblur:3@0.5"]
    (told,) = lines(lavps("benchmark", *few, "--coverage", "19", "--json"))
    found = told["entries"][0]["row"]["metrics"]
    assert 0 <= found["coverage90"]["mean"] <= 1
    assert 0 <= found["calibration"]["mean"] <= 0.5
    assert lavps("benchmark", *few, "--coverage", "5").exit_code == 2


def test_cmmd_without_its_network_has_a_reason(
    lavps: Lavps, lines: Lines, arguments: list[str], photos: Path
) -> None:
    few = [*arguments, "--images", "1", "--methods", "mgdm", "--tasks", "deblur:3@0.5"]
    (told,) = lines(lavps("benchmark", *few, "--metrics", "psnr,cmmd", "--json"))
    found = told["entries"][0]["row"]["metrics"]
    assert found["cmmd"]["mean"] is None
    assert found["cmmd"]["reason"]
    assert found["psnr"]["mean"] is not None
    scores = lavps("evaluate", photos, photos, "--metrics", "cmmd", "--json")
    assert scores.exit_code == 0
    assert lines(scores)[0]["metrics"]["cmmd x1000"]["mean"] is None
    assert "cmmd is left out" in scores.stderr


def test_all_methods_that_have_networks(
    lavps: Lavps, photos: Path, model_folder: Path, tmp_path: Path
) -> None:
    result = lavps(
        "benchmark", "--dataset", photos, "--size", "16", "--model", model_folder, "--device",
        "cpu", "--dtype", "fp32", "--metrics", "psnr", "--tasks", "denoise", "--ood", "none",
        "--images", "1", "--methods", "all", "--preset", "fast", "-o", tmp_path / "run", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    measured = [entry["method"] for entry in json.loads(result.stdout)["entries"]]
    trained = {name for name, entry in catalog.SAMPLERS.items() if entry.trained}
    assert set(measured) == set(catalog.SAMPLERS) - trained - {"latino"}


def test_curves_are_measured_drawn_and_kept(
    lavps: Lavps, photos: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    flags = [
        "--dataset", photos, "--size", "16", "--model", model_folder, "--device", "cpu",
        "--dtype", "fp32", "--metrics", "psnr", "--tasks", "denoise,sr:2", "--ood", "none",
        "--images", "1", "--methods", "ddrm,pigdm", "--curve", "25", "-o", tmp_path / "run",
    ]  # fmt: skip
    result = lavps("benchmark", *flags, "--plot", tmp_path / "q.svg", "--json")
    assert result.exit_code == 0, result.output
    entries = json.loads(result.stdout)["entries"]
    steps = [e["row"]["options"]["num_steps"] for e in entries if e["task"].startswith("denoise")]
    assert steps == [10, 20, 10]  # Of PiGDM, 20 steps are 40 evaluations and 20 backward ones.
    assert all(e["row"]["units"] <= 31 for e in entries)
    drawn = (tmp_path / "q.svg").read_text()
    assert drawn.count("denoise") >= 1
    page, more = tmp_path / "q.html", tmp_path / "both.svg"
    both = [*flags, "--metrics", "psnr,ssim", "--html", page, "--plot", more, "-o", tmp_path / "2"]
    assert lavps("benchmark", *both, "--no-save").exit_code == 0
    assert all(f"{name}, higher is better" in more.read_text() for name in ("psnr", "ssim"))
    assert "Quality against evaluations" in page.read_text()
    assert page.read_text().count("<svg") == 1
    (kept,) = (tmp_path / "cache" / "lavps" / "curves").glob("*.json")
    found = read_curves(kept)
    assert found is not None
    assert {(p.task, p.method) for p in found.points} == {
        (t, m) for t in ("denoise", "sr") for m in ("ddrm", "pigdm")
    }
    again = lavps("benchmark", *flags, "--budget", "1s")
    assert again.exit_code == 2
    assert "Leave either out" in again.output
