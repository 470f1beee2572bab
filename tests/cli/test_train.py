import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage
from safetensors.torch import load_file
from typer.testing import Result

from lavps_cli.training.log import read_lines

Lavps = Callable[..., Result]
Lines = Callable[[Result], list[dict[str, Any]]]

SMALL = (
    "--preset", "tiny", "--resolution", "16", "--batch-size", "4", "--dtype", "fp32", "--device",
    "cpu", "--log-every", "2", "--save-every", "4", "--warmup", "2", "--optimizer", "adamw",
)  # fmt: skip


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(9):
        pixels = rng.integers(0, 255, (5, 6, 3), dtype=np.uint8)
        PillowImage.fromarray(pixels).resize((48, 40)).save(folder / f"p{i}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.mark.parametrize("stage", ["prior", "inference"])
def test_pictures_that_are_not_trained_on_are_measured_and_change_nothing(
    lavps: Lavps, photos: Path, model_folder: Path, tmp_path: Path, stage: str
) -> None:
    settings = [
        "train", "--dataset", photos, "--stage", stage, "--prior", model_folder, "--operators",
        "sr:2,inpaint:rect", "--duration", "4", *SMALL,
    ]  # fmt: skip
    held_out = ["--validation", f"{photos}/p[0-4].png", "--eval-every", "2"]
    runs = [tmp_path / name for name in ("plain", "watched", "again")]
    threads = threading.enumerate()
    for run, more in zip(runs, ([], held_out, held_out), strict=True):
        result = lavps(*settings, *more, "-o", run)
        assert result.exit_code == 0, result.output
        assert ("step 4, pictures that are not trained on: loss" in result.stderr) == bool(more)
    assert threading.enumerate() == threads
    lines = [read_lines(run / "validation.jsonl") for run in runs[1:]]
    assert [line["step"] for line in lines[0]] == [2, 4]
    assert lines[0] == lines[1]
    assert ("ratio" in lines[0][0]) == (stage == "inference")
    plain, watched, _ = (load_file(run / "latest" / "model.safetensors") for run in runs)
    assert all((plain[name] == watched[name]).all() for name in plain)


@pytest.fixture
def prior(lavps: Lavps, photos: Path, tmp_path: Path) -> Path:
    run = tmp_path / "prior"
    result = lavps(
        "train", "--dataset", photos, "--stage", "prior", "--duration", "6", "-o", run, *SMALL
    )
    assert result.exit_code == 0, result.output
    return run


def test_a_prior_then_its_inference_model_then_a_picture(
    lavps: Lavps, prior: Path, photos: Path, tmp_path: Path
) -> None:
    """The whole way, as a user would go it."""
    run = tmp_path / "inference"
    families = "sr:2,deblur:3-7@0-1,inpaint:rect+0.02"
    result = lavps(
        "train", "--dataset", photos, "--prior", prior, "--operators", families, "--duration",
        "20", "--sample-every", "10", "-o", run, *SMALL,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{run / 'latest'}\n"
    assert "9 pictures" in result.stderr
    assert "1 files skipped" in result.stderr
    lines = read_lines(run / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(2, 21, 2))
    assert any("ratio" in line and 0 < line["accepted"] <= 1 for line in lines)
    config = json.loads((run / "latest" / "config.json").read_text())
    assert config["operators"] == families.split(",")
    assert config["kind"] == "inference"
    card = (run / "latest" / "README.md").read_text()
    assert f"--operators {families}" in card
    with PillowImage.open(run / "samples" / "step_00000010.png") as grid:
        assert grid.size == (4 * 16, 7 * 16)
    out = tmp_path / "out.png"
    result = lavps(
        "restore", photos / "p0.png", "--task", "sr", "--scale", "2", "--model", prior,
        "--inference", run, "-O", "num_steps=4", "-o", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    with PillowImage.open(out) as picture:
        assert picture.size == (96, 80)


@pytest.mark.parametrize("arch", ["palette", "invfusion"])
def test_a_conditional_denoiser_is_trained_and_restores(
    lavps: Lavps, prior: Path, photos: Path, tmp_path: Path, arch: str
) -> None:
    run, out = tmp_path / "conditional", tmp_path / "out.png"
    result = lavps(
        "train", "--dataset", photos, "--stage", "conditional", "--arch", arch, "--operators",
        "inpaint:rect,deblur:3-5@0-1", "--duration", "4", "--sample-every", "4", "-o", run, *SMALL,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    with PillowImage.open(run / "samples" / "step_00000004.png") as grid:
        assert grid.size == (4 * 16, 5 * 16)
    from_prior = lavps(
        "train", "--dataset", photos, "--stage", "conditional", "--arch", arch, "--operators",
        "sr:2", "--duration", "1", "--from", prior, "-o", tmp_path / "more", *SMALL,
    )  # fmt: skip
    assert from_prior.exit_code == 0, from_prior.output
    restore = ("restore", photos / "p0.png", "--task", "denoise", "--noise", "0.1", "--model")
    result = lavps(*restore, run, "--method", "conditional", "-O", "num_steps=3", "-o", out)
    assert result.exit_code == 0, result.output
    with PillowImage.open(out) as picture:
        assert picture.size == (48, 40)
    for model, method in ((run, "mgdm"), (prior, "conditional")):
        refused = lavps(*restore, model, "--method", method, "-o", tmp_path / "no.png")
        assert refused.exit_code == 2, refused.output
        assert "conditional" in refused.stderr
        assert not (tmp_path / "no.png").exists()


@pytest.mark.parametrize("more", [(), ("--adversarial", "0.1")])
def test_a_chain_is_trained_for_a_prior_and_restores(
    lavps: Lavps, lines: Lines, prior: Path, photos: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    run, out = tmp_path / "latino", tmp_path / "out.png"
    train = (
        "train", "--dataset", photos, "--stage", "latino", "--prior", prior, "--operators",
        "sr:2,inpaint:rect", "--sample-every", "4", "-o", run, *more, *SMALL,
    )  # fmt: skip
    result = lavps(*train, "--duration", "4")
    assert result.exit_code == 0, result.output
    assert (run / "samples" / "step_00000004.png").exists()
    assert (run / "latest" / "model.safetensors").stat().st_size < 2**17
    assert lavps(*train, "--duration", "6").exit_code == 0
    restore = (
        "restore", photos / "p0.png", "--task", "sr", "--scale", "2", "--model", prior, "--method",
        "latino", "-o", out, "--json", "--existing", "overwrite",
    )  # fmt: skip
    trained = lavps(*restore, "--inference", run)
    assert trained.exit_code == 0, trained.output
    assert lines(trained)[0]["nfe"] == 9
    with PillowImage.open(out) as picture:
        assert picture.size == (96, 80)
        learnt = np.asarray(picture).copy()
    untrained = lavps(*restore, "--inference", "none")
    assert untrained.exit_code == 0, untrained.output
    with PillowImage.open(out) as picture:
        assert not np.array_equal(np.asarray(picture), learnt)
    other = lavps(*restore, "--inference", run, "-O", "num_steps=5")
    assert other.exit_code == 2, other.output
    assert "trained for 3" in other.stderr


def test_a_flow_is_trained_for_a_prior_and_restores(
    lavps: Lavps, lines: Lines, prior: Path, photos: Path, tmp_path: Path
) -> None:
    run, out = tmp_path / "aps", tmp_path / "out.png"
    result = lavps(
        "train", "--dataset", photos, "--stage", "aps", "--prior", prior, "--operators",
        "denoise+0.1", "--duration", "4", "--sample-every", "4", "-o", run, *SMALL,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert (run / "samples" / "step_00000004.png").exists()
    restore = (
        "restore", photos / "p0.png", "--task", "denoise", "--noise", "0.1", "--model", run,
        "-o", out, "--json", "--existing", "overwrite",
    )  # fmt: skip
    result = lavps(*restore, "--method", "aps", "--samples", "4", "--mean")
    assert result.exit_code == 0, result.output
    assert lines(result)[0]["nfe"] == 4  # One a sample.
    for method in ("lavps", "conditional"):
        refused = lavps(*restore, "--method", method)
        assert refused.exit_code == 2, refused.output
        assert "--method aps" in refused.stderr


def test_what_is_beside_a_prior_is_found_by_the_method(
    lavps: Lavps, model_folder: Path, conditional_folder: Path, photos: Path, tmp_path: Path
) -> None:
    shutil.copytree(model_folder, tmp_path / "w")
    shutil.copytree(conditional_folder, tmp_path / "w-conditional")
    base = (
        "restore", photos / "p0.png", "--task", "denoise", "--noise", "0.1", "--method",
        "conditional", "-O", "num_steps=2", "--model",
    )  # fmt: skip
    for i, model in enumerate((tmp_path / "w", conditional_folder)):
        result = lavps(*base, model, "-o", tmp_path / f"{i}.png")
        assert result.exit_code == 0, result.output
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "1.png").read_bytes()


def test_operator_aware_layers_are_trained_and_restore(
    lavps: Lavps, prior: Path, photos: Path, tmp_path: Path
) -> None:
    run, out = tmp_path / "invfusion", tmp_path / "out.png"
    result = lavps(
        "train", "--dataset", photos, "--prior", prior, "--arch", "invfusion", "--operators",
        "inpaint:rect,deblur:3-5@0-1", "--duration", "4", "-o", run, *SMALL,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert json.loads((run / "latest" / "config.json").read_text())["model"]["joint"] == 2
    result = lavps(
        "restore", photos / "p0.png", "--task", "denoise", "--noise", "0.1", "--model", prior,
        "--inference", run, "-O", "num_steps=4", "-o", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.output


def test_the_same_command_goes_on_and_other_settings_are_refused(
    lavps: Lavps, prior: Path, photos: Path
) -> None:
    base = ("train", "--dataset", photos, "--stage", "prior", "-o", prior)
    again = lavps(*base, "--duration", "6", *SMALL)
    assert again.exit_code == 0, again.output
    assert [line["step"] for line in read_lines(prior / "metrics.jsonl")] == [2, 4, 6]
    longer = lavps(*base, "--duration", "10", *SMALL)
    assert longer.exit_code == 0, longer.output
    assert [line["step"] for line in read_lines(prior / "metrics.jsonl")] == [2, 4, 6, 8, 10]
    other = lavps(*base, "--duration", "10", *SMALL, "--lr", "0.5")
    assert other.exit_code == 2
    assert "lr None there, 0.5 here" in other.stderr
    never = lavps(*base, "--duration", "10", *SMALL, "--resume", "never")
    assert never.exit_code == 4
    assert (prior / "latest" / "model.safetensors").exists()


def test_a_copy_of_another_run_goes_on_as_that_one_would(
    lavps: Lavps, prior: Path, photos: Path, tmp_path: Path
) -> None:
    base = ("train", "--dataset", photos, "--stage", "prior", "--duration", "10", *SMALL)
    copy = tmp_path / "copy"
    assert lavps(*base, "-o", copy, "--resume", prior).exit_code == 0
    assert [line["step"] for line in read_lines(prior / "metrics.jsonl")][-1] == 6
    assert lavps(*base, "-o", prior).exit_code == 0
    there, here = (load_file(run / "latest" / "model.safetensors") for run in (prior, copy))
    assert all((there[name] == here[name]).all() for name in there)
    nowhere = lavps(*base, "-o", tmp_path / "other", "--resume", photos)
    assert nowhere.exit_code == 2
    assert "no training run" in nowhere.stderr


def test_what_is_trained_on_begins_with_the_weights_of_from(
    lavps: Lavps, prior: Path, photos: Path, tmp_path: Path
) -> None:
    run = tmp_path / "on"
    result = lavps(
        "train", "--dataset", photos, "--stage", "prior", "--from", prior, "--lr", "1e-9",
        "--duration", "2", "-o", run, *SMALL,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    before, after = (load_file(r / "latest" / "model.safetensors") for r in (prior, run))
    assert before.keys() == after.keys()
    assert all((before[n].float() - after[n].float()).abs().max() < 1e-3 for n in before)


def test_a_data_set_that_is_gone_leaves_the_run_as_it_was(
    lavps: Lavps, prior: Path, photos: Path
) -> None:
    photos.rename(photos.with_name("elsewhere"))
    before = (prior / "latest" / "model.safetensors").read_bytes()
    result = lavps(
        "train", "--dataset", photos, "--stage", "prior", "--duration", "9", "-o", prior, *SMALL
    )
    assert result.exit_code == 5
    assert "--dataset DIR" in result.stderr
    assert (prior / "latest" / "model.safetensors").read_bytes() == before


def test_dry_run_measures_and_leaves_nothing(lavps: Lavps, lines: Lines, tmp_path: Path) -> None:
    run = tmp_path / "run"
    threads = threading.enumerate()
    result = lavps("train", "--stage", "prior", "-n", "--json", "-o", run, *SMALL)
    assert result.exit_code == 0, result.output
    assert threading.enumerate() == threads
    (plan,) = lines(result)
    assert plan["status"] == "planned"
    assert plan["parameters"] > 10_000
    assert plan["steps"] == 20_000
    assert plan["hours"] == pytest.approx(20_000 * 4 / plan["pictures_per_second"] / 3600)
    assert plan["memory_mib"] > 50
    assert not run.exists()


def test_max_time_pauses_and_says_how_to_go_on(
    lavps: Lavps, lines: Lines, photos: Path, tmp_path: Path
) -> None:
    base = ("train", "--dataset", photos, "--stage", "prior", "-o", tmp_path / "r", *SMALL)
    result = lavps(*base, "--max-time", "0.001s", "--json")
    assert result.exit_code == 0, result.output
    assert lines(result)[-1]["status"] == "time"


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ((), 2, "--list-datasets"),
        (("--dataset", "nowhere"), 5, "nowhere"),
        (("--dataset", "DIR", "--operators", "deblur:20"), 2, "odd"),
        (("--dataset", "DIR", "--duration", "12x"), 2, "20k"),
        (("--dataset", "DIR", "--resolution", "17"), 2, "multiples of 8"),
        (("--dataset", "DIR", "--shares", "1,2"), 2, "one for each"),
        (("--dataset", "DIR", "--dtype", "fp16"), 2, "bf16"),
        (("--dataset", "DIR", "--prior", "none-such"), 5, "none-such"),
        (("--dataset", "DIR", "--log", "paper"), 2, "no such log"),
        (("--dataset", "DIR", "--batch-size", "7", "--batch-gpu", "2"), 2, "divide"),
        (("--dataset", "DIR", "--max-time", "1"), 2, "2h"),
        (("--dataset", "DIR", "--gpus", "two"), 2, "number"),
    ],
)
def test_mistakes_are_told(
    lavps: Lavps, photos: Path, tmp_path: Path, model_folder: Path, args: Any, code: int, said: str
) -> None:
    given = [str(photos) if arg == "DIR" else arg for arg in args]
    usual = SMALL if "--batch-size" not in given else SMALL[:4] + SMALL[6:]
    usual = tuple(a for a in usual if a not in ("--dtype", "fp32")) if "--dtype" in given else usual
    usual = usual if "--resolution" not in given else usual[:2] + usual[4:]
    prior = () if "--prior" in given else ("--prior", model_folder)
    prior = prior if "--operators" in given else (*prior, "--operators", "sr:2")
    result = lavps("train", "-o", tmp_path / "r", *prior, *usual, *given)
    assert result.exit_code == code, result.output
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_datasets_are_listed_with_their_licence(lavps: Lavps) -> None:
    result = lavps("train", "--list-datasets")
    assert result.exit_code == 0
    assert any("ffhq" in line and "CC BY-NC-SA" in line for line in result.stdout.splitlines())


def start(args: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lavps_cli", "train", *args],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )  # fmt: skip


@pytest.mark.slow
def test_killed_runs_lose_one_interval_at_most(photos: Path, tmp_path: Path) -> None:
    """SIGKILL at any moment, several times: the loss curve is that of a run left in peace."""
    settings = ["--dataset", str(photos), "--stage", "prior", *SMALL, "--save-every", "2"]
    settings += ["--duration", "60", "--threads", "1", "--cache", str(tmp_path / "cache")]
    killed, peace = tmp_path / "killed", tmp_path / "peace"
    process = start([*settings, "-o", str(peace)])
    assert process.communicate(timeout=120)
    assert process.returncode == 0
    rng = np.random.default_rng(int.from_bytes(os.urandom(2)))
    kills = 0
    for _ in range(12):
        process = start([*settings, "-o", str(killed)])
        before = time.monotonic()
        while not (killed / "metrics.jsonl").exists() and time.monotonic() < before + 60:
            time.sleep(0.01)
        try:
            _, told = process.communicate(timeout=0.3 * rng.random() if kills < 3 else 120)
            break
        except subprocess.TimeoutExpired:
            process.kill()
            _, told = process.communicate()
            kills += 1
    assert process.returncode == 0, told
    assert kills > 0
    curves = [[(x["step"], x["loss"]) for x in read_lines(r / "metrics.jsonl")]
              for r in (killed, peace)]  # fmt: skip
    assert curves[0] == curves[1]
    weights = [load_file(r / "latest" / "model.safetensors") for r in (killed, peace)]
    assert all((weights[0][n] == weights[1][n]).all() for n in weights[1])


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_leave_a_checkpoint_and_their_exit_code(
    photos: Path, tmp_path: Path, number: int, code: int
) -> None:
    run = tmp_path / "run"
    settings = ["--dataset", str(photos), "--stage", "prior", *SMALL, "--save-every", "100000"]
    process = start([*settings, "-o", str(run)])
    before = time.monotonic()
    while not (run / "metrics.jsonl").exists() and time.monotonic() < before + 60:
        time.sleep(0.05)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == code, told
    assert "the same command goes on" in told
    assert (run / "latest" / "model.safetensors").exists()


TELL_THREADS = """
import atexit, os

def tell():
    if "RANK" in os.environ and os.path.isdir("/proc/self/task"):
        with open(os.environ["THREADS"], "a") as file:
            print(len(os.listdir("/proc/self/task")), file=file)

atexit.register(tell)
"""


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_learn_what_one_does(
    photos: Path, tmp_path: Path, model_folder: Path, parallel: str
) -> None:
    """torchrun with gloo: the same losses as one process with the same total batch.

    A checkpoint of two processes goes on in one. No thread outlives the interpreter, which would
    abort the process where it frees a tensor.
    """
    (tmp_path / "sitecustomize.py").write_text(TELL_THREADS)
    threads = tmp_path / "threads"
    surroundings = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path), "THREADS": str(threads)}
    settings = ["train", "--dataset", str(photos), "--prior", str(model_folder), *SMALL]
    settings += ["--operators", "sr:2,inpaint:rect", "--threads", "1"]
    curves = []
    for processes in ([], ["--gpus", "2", "--parallel", parallel]):
        run = tmp_path / str(len(processes))
        for duration, several in (("8", processes), ("12", [])):
            command = [sys.executable, "-m", "lavps_cli", *settings, "-o", str(run), *several]
            done = subprocess.run(
                [*command, "--duration", duration], capture_output=True, text=True, timeout=200,
                check=False, env=os.environ | surroundings,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            assert done.stdout.count("latest") == 1
        curves.append([(x["step"], x["loss"]) for x in read_lines(run / "metrics.jsonl")])
        assert curves[-1][-1][0] == 12
    if Path("/proc/self/task").is_dir():
        assert threads.read_text().split() == ["1", "1"]
    for (step, one), (other_step, two) in zip(*curves, strict=True):
        assert step == other_step
        assert two == pytest.approx(one, rel=1e-4)
