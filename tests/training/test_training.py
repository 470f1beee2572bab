import json
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lavps_cli.core.gaussian import DiagonalGaussian
from lavps_cli.core.schedule import SCHEDULES
from lavps_cli.core.types import Image
from lavps_cli.core.variational import Context
from lavps_cli.errors import LavpsError, OutputError, WeightsError
from lavps_cli.models.analytic import GaussianPrior
from lavps_cli.models.hdit import HDiT, HDiTConfig
from lavps_cli.models.hdit_layers import LevelConfig
from lavps_cli.models.inference import AmortisedInference, InferenceNetwork
from lavps_cli.operators.inpainting import Inpainting
from lavps_cli.training import checkpoints
from lavps_cli.training.algorithm1 import InferenceObjective
from lavps_cli.training.amortisation import gain_over_bridge, inference_loss
from lavps_cli.training.conditional import ConditionalObjective
from lavps_cli.training.contexts import Trajectories
from lavps_cli.training.denoising import PriorObjective, denoising_loss
from lavps_cli.training.families import parse_families
from lavps_cli.training.log import Log, Numbers, read_lines
from lavps_cli.training.loop import Hooks, Objective, Trained, TrainOptions, fit
from lavps_cli.training.optim import rate
from lavps_cli.training.problems import Problems
from lavps_cli.training.rows import Rows, generator_of, shares, whole

TINY = HDiTConfig(
    levels=(LevelConfig(depth=1, width=16, d_ff=16, d_head=8, window=3),),
    patch_size=2,
    mapping_width=16,
    mapping_d_ff=16,
    mapping_depth=1,
    rope_extent=4,
)
INFERENCE = replace(TINY, in_channels=9, out_channels=9, mapping_cond_dim=64)
FAMILIES = parse_families("2*sr:2,inpaint:pixels@0.3-0.6,deblur:3-5@0-1", 8)


class Smooth:
    """Pictures that are a constant plus a gradient, each a function of its number."""

    def batch(self, first: int, count: int, seed: int) -> Image:
        rows = []
        for n in range(first, first + count):
            level, slope = torch.rand(2, 3, 1, 1, generator=generator_of(seed, n)) - 0.5
            rows.append((level + slope * torch.linspace(-1, 1, 8)).expand(3, 8, 8))
        return torch.stack(rows)


def seeded(module: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch.Generator().manual_seed(0).get_state())
        return module()


def prior_objective(rows: list[Rows] | None = None) -> PriorObjective:
    network = seeded(lambda: HDiT(TINY))
    return PriorObjective(network, {8: Smooth()}, (8,), rows or [whole(8)], seed=0)


def inference_objective(rows: list[Rows] | None = None) -> InferenceObjective:
    network = seeded(lambda: InferenceNetwork(INFERENCE))
    assert isinstance(network, InferenceNetwork)
    return InferenceObjective(
        AmortisedInference(network, SCHEDULES["flow"]),
        GaussianPrior(torch.zeros(3, 8, 8), 0.25, SCHEDULES["flow"]),
        Problems(FAMILIES, Smooth(), seed=0, size=8),
        rows or [whole(6)],
    )


def conditional_objective(rows: list[Rows] | None = None) -> ConditionalObjective:
    network = seeded(lambda: HDiT(replace(TINY, in_channels=6, joint=1)))
    assert isinstance(network, HDiT)
    return ConditionalObjective(
        network, Problems(FAMILIES, Smooth(), seed=0, size=8), rows or [whole(6)]
    )


def run_fit(
    objective: Objective, run: Path, hooks: Hooks | None = None, **options: float
) -> Trained:
    run.mkdir(exist_ok=True)
    settings = TrainOptions(**({"lr": 5e-3, "warmup": 5, "log_every": 5} | options))  # type: ignore[arg-type]
    hooks = hooks or Hooks(lambda folder, average, step: None)
    return fit(objective, settings, run, Log(run / "metrics.jsonl"), hooks)


def losses(run: Path) -> list[tuple[float, float]]:
    return [(line["step"], line["loss"]) for line in read_lines(run / "metrics.jsonl")]


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_training_lowers_the_denoising_loss(tmp_path: Path, optimizer: str) -> None:
    trained = run_fit(prior_objective(), tmp_path, num_steps=60, log_every=10, optimizer=optimizer)
    assert (trained.step, trained.ending) == (60, "done")
    values = losses(tmp_path)
    assert [step for step, _ in values] == [10, 20, 30, 40, 50, 60]
    assert values[-1][1] < 0.8 * values[0][1]


def test_untrained_loss_is_the_targets_variance() -> None:
    """The weights make the target of unit variance for data of deviation 0.5, at every level."""
    generator = generator_of(0)
    x = 0.5 * torch.randn(512, 3, 8, 8, generator=generator)
    loss, numbers = denoising_loss(HDiT(TINY), x, generator)
    assert abs(loss.item() - 1) < 0.05
    assert sum(numbers[f"loss_q{i}"].numel() for i in range(4)) == 512


@pytest.mark.parametrize("make", [prior_objective, inference_objective, conditional_objective])
def test_the_gradient_does_not_depend_on_the_parts(
    make: Callable[[list[Rows] | None], Objective],
) -> None:
    """Whole, in parts, or on several processes: the same draws, the same mean loss."""
    total = 8 if make is prior_objective else 6
    one, parts = make(None), make(shares(total, 0, 1, 2))
    processes = [make(shares(total, rank, 2, 1)) for rank in range(2)]
    for step in range(4):
        value = one.loss(step, 0)[0]
        in_parts = sum(parts.loss(step, part)[0] for part in range(2)) / 2
        on_both = sum(own.loss(step, 0)[0] for own in processes) / 2
        assert torch.allclose(value, in_parts, rtol=1e-5)
        assert torch.allclose(value, on_both, rtol=1e-5)


@pytest.mark.parametrize("make", [prior_objective, inference_objective, conditional_objective])
@pytest.mark.parametrize("stop", [7, 10])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    tmp_path: Path, make: Callable[[], Objective], stop: int
) -> None:
    whole_run, parted = tmp_path / "whole", tmp_path / "parted"
    options = {"num_steps": 40, "save_every": 5, "log_every": 4}
    there = run_fit(make(), whole_run, **options)

    class Killed(Exception):
        pass

    objective = make()
    loss = objective.loss

    def dying(step: int, part: int) -> tuple[Tensor, Numbers]:
        if step == stop:
            raise Killed
        return loss(step, part)

    objective.loss = dying  # type: ignore[method-assign]
    with pytest.raises(Killed):
        run_fit(objective, parted, **options)
    here = run_fit(make(), parted, **options)
    assert losses(parted) == losses(whole_run)
    for a, b in zip(here.average.parameters(), there.average.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_goes_on_with_another_number_of_parts(tmp_path: Path) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    for run, rows in ((first, None), (second, shares(6, 0, 1, 3))):
        run_fit(inference_objective(), run, num_steps=10, save_every=10)
        parts = 3 if rows else 1
        run_fit(inference_objective(rows), run, num_steps=30, save_every=10, parts=parts)
    for (_, a), (_, b) in zip(losses(first), losses(second), strict=True):
        assert math.isclose(a, b, rel_tol=1e-3)


def test_a_signal_ends_after_the_step_with_a_checkpoint(tmp_path: Path) -> None:
    objective = prior_objective()
    loss = objective.loss

    def interrupting(step: int, part: int) -> tuple[Tensor, Numbers]:
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(step, part)

    objective.loss = interrupting  # type: ignore[method-assign]
    before = signal.getsignal(signal.SIGTERM)
    trained = run_fit(objective, tmp_path, num_steps=50, save_every=1000)
    assert (trained.step, trained.ending) == (7, "terminated")
    assert signal.getsignal(signal.SIGTERM) == before
    state, _ = checkpoints.load_newest(tmp_path)
    assert state is not None
    assert state["step"] == 7


def test_max_time_pauses_and_the_same_call_goes_on(tmp_path: Path) -> None:
    trained = run_fit(prior_objective(), tmp_path, num_steps=10, max_time=1e-9)
    assert (trained.step, trained.ending) == (1, "time")
    assert run_fit(prior_objective(), tmp_path, num_steps=10).step == 10


def test_only_the_newest_checkpoints_are_kept_and_latest_is_the_last(tmp_path: Path) -> None:
    def export(folder: Path, average: nn.Module, step: int) -> None:
        (folder / "config.json").write_text(str(step))

    run_fit(prior_objective(), tmp_path, Hooks(export), num_steps=20, save_every=4, keep=2)
    names = [folder.name for folder in checkpoints.checkpoints(tmp_path)]
    assert names == ["step_00000016", "step_00000020"]
    assert (tmp_path / "latest" / "config.json").read_text() == "20"
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_a_gradient_that_is_not_a_number_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    objective = prior_objective()
    loss = objective.loss

    def poisoned(step: int, part: int) -> tuple[Tensor, Numbers]:
        value, numbers = loss(step, part)
        return value * (float("nan") if step == 5 else 1.0), numbers

    objective.loss = poisoned  # type: ignore[method-assign]
    with pytest.raises(LavpsError, match="step 5") as error:
        run_fit(objective, tmp_path, num_steps=9, save_every=4)
    assert "step 4" in error.value.hint
    state, _ = checkpoints.load_newest(tmp_path)
    assert state is not None
    assert all(value.isfinite().all() for value in state["network"].values())


def test_a_full_disk_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_fit(prior_objective(), tmp_path, num_steps=4, save_every=4)

    def full(*args: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left") as error:
        run_fit(prior_objective(), tmp_path, num_steps=8, save_every=4)
    assert "same command" in error.value.hint
    assert [folder.name for folder in checkpoints.checkpoints(tmp_path)] == ["step_00000004"]
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path) -> None:
    run_fit(prior_objective(), tmp_path, num_steps=8, save_every=4)
    newest = checkpoints.checkpoints(tmp_path)[-1] / checkpoints.STATE
    newest.write_bytes(newest.read_bytes()[:1000])
    state, wrong = checkpoints.load_newest(tmp_path)
    assert state is not None
    assert state["step"] == 4
    assert len(wrong) == 1
    for folder in checkpoints.checkpoints(tmp_path):
        (folder / checkpoints.STATE).write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="no checkpoint"):
        checkpoints.load_newest(tmp_path)


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, ("touch /tmp/lavps-was-here",))


def test_a_state_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"step": Malicious()}, tmp_path / "state.pt")
    with pytest.raises(WeightsError):
        checkpoints.load(tmp_path / "state.pt")
    assert not Path("/tmp/lavps-was-here").exists()


def test_rate_rises_then_falls_to_zero() -> None:
    assert rate(0, 0.0, 1.0, 10) == pytest.approx(0.1)
    assert rate(100, 0.1, 1.0, 10) == 1.0
    assert rate(999, 0.999, 1.0, 10) < 0.01
    assert rate(0, 0.0, 1.0, 0) == 1.0


def test_lines_cut_off_by_a_kill_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 5, "loss": 1.0}) + '\n{"step": 10, "lo')
    assert [line["step"] for line in read_lines(path)] == [5]


def problem(n: int) -> tuple[Image, Inpainting]:
    masks = torch.randint(0, 2, (6, 1, 8, 8), generator=generator_of(n)).float()
    return Smooth().batch(6 * n, 6, 1), Inpainting(masks)


def trajectories(seed: int = 0, life: int = 24, highest: float = 1.0) -> Trajectories:
    return Trajectories(
        GaussianPrior(torch.zeros(3, 8, 8), 0.25, SCHEDULES["vp"]),
        problem,
        sigma_y=0.1,
        rows=whole(6),
        generator=torch.Generator().manual_seed(seed),
        num_steps=(5, 12),
        life=life,
        highest=highest,
    )


def bridge_of(c: Context) -> tuple[DiagonalGaussian, Image]:
    return c.bridge, torch.zeros_like(c.x0)


def test_the_bridge_gains_nothing_over_itself() -> None:
    numbers = gain_over_bridge(bridge_of, trajectories())
    assert torch.equal(numbers["ratio"], torch.ones(6))
    assert torch.equal(numbers["accepted"], torch.ones(6))
    assert sum(numbers[f"ratio_t{i}"].numel() for i in range(4)) == 6


def test_trajectories_walk_down_and_begin_again() -> None:
    run = trajectories(life=1000)
    fell = began = 0
    previous = run.draw()
    for _ in range(30):
        run.advance(previous, *bridge_of(previous))
        c = run.draw()
        assert (c.s < c.t).all()
        assert (c.s > 0).all()
        fell += int((c.t < previous.t).sum())
        began += int((c.t > previous.t).sum())
        previous = c
    assert fell > 3 * began > 0


def test_trajectories_keep_to_the_range_that_is_learnt() -> None:
    run = trajectories(life=7, highest=0.5)
    times = []
    for _ in range(60):
        c = run.draw()
        run.advance(c, *bridge_of(c))
        times.append(c.t)
    assert torch.cat(times).max() <= 0.5
    assert torch.cat(times).max() > 0.35


def test_trajectories_go_on_from_their_state() -> None:
    run, other = trajectories(), trajectories(seed=9)
    for n in count():
        c = run.draw()
        run.advance(c, *bridge_of(c))
        if n == 30:
            break
    other.load({name: value.clone() for name, value in run.state().items()})
    for _ in range(30):
        a, b = run.draw(), other.draw()
        assert torch.equal(a.xt, b.xt)
        assert torch.equal(a.likelihood.y, b.likelihood.y)
        run.advance(a, *bridge_of(a))
        other.advance(b, *bridge_of(b))


def test_a_learnt_gain_lowers_the_objective() -> None:
    """One parameter, the pull towards known pixels: Algorithm 1 finds that pulling helps."""
    gain = nn.Parameter(torch.zeros(()))

    def predict(c: Context) -> tuple[DiagonalGaussian, Image]:
        pull = c.likelihood.A.adjoint(c.likelihood.y - c.likelihood.A(c.x0))
        mu = c.bridge.mu + gain * c.bridge.rho.sqrt() * pull
        return DiagonalGaussian(mu, c.bridge.rho), torch.zeros_like(mu)

    run = trajectories()
    adam = torch.optim.Adam([gain], lr=0.05)
    for _ in range(40):
        loss, _ = inference_loss(predict, run)
        gain.grad = torch.autograd.grad(loss, gain)[0]
        adam.step()
    assert gain.item() > 0.2
    ratios = [float(gain_over_bridge(predict, run)["ratio"].mean()) for _ in range(20)]
    assert sum(ratios) / 20 < 0.95


def test_what_is_not_measured_follows_the_clean_picture() -> None:
    """However wrong the predicted shift: holes take the bridge of the clean picture."""
    after = []
    for wrong in (0.0, 5.0):
        run = trajectories(life=1000)
        c = run.draw()
        shift = torch.full_like(c.x0, wrong)
        hole = 1 - c.likelihood.A.mask
        run.advance(c, DiagonalGaussian(c.bridge.mu + hole * shift, c.bridge.rho), shift)
        after.append(run.draw().xt * hole)
    torch.testing.assert_close(after[0], after[1], atol=1e-3, rtol=0)


def test_shift_in_holes_is_learnt_by_regression() -> None:
    """The best multiple of the shift to the clean picture is that shift itself."""
    share = nn.Parameter(torch.zeros(()))
    run = trajectories()
    for _ in range(5):
        _, numbers = inference_loss(lambda c: (c.bridge, share * run.shift_to_clean(c)), run)
        assert 0.8 < numbers["unmeasured"].mean() <= 1
    with torch.no_grad():
        share.fill_(1.0)
    _, numbers = inference_loss(lambda c: (c.bridge, share * run.shift_to_clean(c)), run)
    assert numbers["unmeasured"].mean() < 1e-6


def test_the_prior_gets_no_gradient() -> None:
    network = HDiT(TINY).requires_grad_(False)
    run = trajectories()
    run.denoiser = type("D", (), {
        "schedule": SCHEDULES["vp"],
        "__call__": lambda self, xt, t: xt + network(xt, t.float().expand(len(xt))),
    })()  # fmt: skip
    shift = nn.Parameter(torch.zeros(()))
    loss, _ = inference_loss(
        lambda c: (DiagonalGaussian(c.bridge.mu + shift, c.bridge.rho), shift + 0 * c.x0), run
    )
    loss.backward()
    assert shift.grad is not None
    assert all(parameter.grad is None for parameter in network.parameters())
