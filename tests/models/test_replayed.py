"""Recorded evaluations: values and slopes of the network itself, whatever was played between."""

import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
import torch
from torch import Tensor, nn

from lavps_cli.images.picture import Picture
from lavps_cli.models import replayed
from lavps_cli.models.replayed import forget, replay
from lavps_cli.pipeline import run, together
from lavps_cli.pipeline.model import Tiling, Weights, open_weights
from lavps_cli.pipeline.problem import observation
from lavps_cli.pipeline.requests import Compute, Problem, Sampling
from lavps_cli.pipeline.sampling import sampler_options

CPU = torch.device("cpu")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class Network(nn.Module):
    """A small network with a condition beside the pictures."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 3, 1))
        draw = torch.Generator().manual_seed(seed)
        for weight in self.parameters():
            weight.data = torch.randn(weight.shape, generator=draw)
        self.requires_grad_(False)
        self.calls = 0

    def forward(self, x: Tensor, level: Tensor, cond: Tensor | None = None) -> Tensor:
        self.calls += 1
        out: Tensor = self.layer(x) * level[:, None, None, None]
        return out if cond is None else out + cond[:, None, None, None]


MEMORY = replayed._Memory(None)
SHARED: dict[str, Tensor] = {}
"""Stands for the memory that all graphs share."""


def recorded(
    forward: Callable[..., Tensor], x: Tensor, args: Any, kwargs: Any, slope: bool
) -> replayed._Recorded:
    """Return graphs as `_record` does, whose memory other graphs overwrite, as a GPU's would."""
    places = [each.detach().clone() for each in (x, *args, *kwargs.values())]
    places[0].requires_grad_(slope)
    output, of_output, of_input = (torch.zeros_like(x) for _ in range(3))

    def run() -> None:
        with torch.enable_grad():
            named = dict(zip(kwargs, places[1 + len(args) :], strict=True))
            out = forward(*places[: 1 + len(args)], **named)
        SHARED.update(out=out, x=places[0])
        output.copy_(out.detach())

    def back() -> None:
        out, place = SHARED["out"], SHARED["x"]
        of_input.copy_(torch.autograd.grad(out, place, of_output, retain_graph=True)[0])

    return replayed._Recorded(
        MEMORY, [place.detach() for place in places], run, output,
        back if slope else None, of_output, of_input,
    )  # fmt: skip


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recording that needs no device."""
    monkeypatch.setattr(replayed, "_record", recorded)
    monkeypatch.setattr(replayed, "_is_recordable", lambda x: True)


def value_and_slope(network: nn.Module, x: Tensor, *args: Any, **kwargs: Any) -> list[Tensor]:
    x = x.clone().requires_grad_()
    out = network(x, *args, **kwargs)
    (slope,) = torch.autograd.grad(out.square().sum(), x)
    return [out.detach(), slope]


def picture(seed: int, side: int = 8, device: torch.device = CPU) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(seed)).to(device)


def check(device: torch.device, tolerance: float) -> None:
    plain, ours = Network().to(device), Network().to(device)
    replay(ours, [], None)
    for seed in range(8):
        for side in (8, 12):
            x, level = picture(seed, side, device), torch.full((2,), 0.3 + seed, device=device)
            for cond in (None, torch.full((2,), float(seed), device=device)):
                found = value_and_slope(ours, x, level, cond=cond)
                for ours_, theirs in zip(
                    found, value_and_slope(plain, x, level, cond=cond), strict=True
                ):
                    torch.testing.assert_close(ours_, theirs, rtol=tolerance, atol=tolerance)
                with torch.no_grad():
                    torch.testing.assert_close(
                        ours(x, level), plain(x, level), rtol=tolerance, atol=tolerance
                    )
    assert ours.calls < plain.calls / 2


def check_between(device: torch.device, tolerance: float) -> None:
    """Slopes are right though other evaluations were played before they were asked for."""
    plain, ours, other = Network().to(device), Network().to(device), Network(1).to(device)
    replay(ours, [], None)
    replay(other, [], None)
    level = torch.ones(2, device=device)
    for seed in range(6):
        xs = [picture(seed + 10 * i, device=device).requires_grad_() for i in range(3)]
        outs = [ours(x, level) for x in xs]
        value_and_slope(other, xs[0].detach(), level)
        for x, out in zip(xs, outs, strict=True):
            (slope,) = torch.autograd.grad(out.square().sum(), x)
            _, expected = value_and_slope(plain, x.detach(), level)
            torch.testing.assert_close(slope, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("pretended")
def test_values_and_slopes_are_the_networks_own() -> None:
    # The stand-in runs the network at each replay: only how often is told by a GPU.
    plain, ours = Network(), Network()
    replay(ours, [], None)
    for seed in range(6):
        x, level = picture(seed), torch.full((2,), 1.0 + seed)
        found, expected = (value_and_slope(n, x, level) for n in (ours, plain))
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other)


@pytest.mark.usefixtures("pretended")
def test_slopes_survive_what_is_played_between() -> None:
    check_between(CPU, 1e-6)


@pytest.mark.usefixtures("pretended")
def test_what_cannot_be_recorded_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Tensor] = []
    monkeypatch.setattr(replayed, "_record", lambda forward, x, *rest: tried.append(x))
    plain, ours = Network(), Network()
    replay(ours, [], None)
    for seed in range(6):
        x, level = picture(seed), torch.ones(2)
        assert torch.equal(ours(x, level), plain(x, level))
    assert len(tried) == 1


@pytest.mark.usefixtures("pretended")
def test_few_graphs_are_kept() -> None:
    ours = Network()
    replay(ours, [], None)
    for side in range(4, 4 + 2 * replayed.MOST_GRAPHS):
        for seed in range(4):
            ours(picture(seed, side), torch.ones(2))
    assert len(ours.forward._graphs) == replayed.MOST_GRAPHS


@pytest.mark.usefixtures("pretended")
def test_what_is_forgotten_is_recorded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []

    def record(*args: Any) -> replayed._Recorded:
        kept.append(recorded(*args))
        return kept[-1]

    monkeypatch.setattr(replayed, "_record", record)
    plain, ours, x, level = Network(), Network(), picture(0), torch.ones(2)
    replay(ours, [], None)
    for _ in range(5):
        ours(x, level)
    first = ref(kept.pop())
    forget()
    assert first() is None
    assert torch.equal(ours(x, level), plain(x, level))
    assert len(kept) == 1


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize("where", [run, together])
@pytest.mark.parametrize("calls", [7, 8, 9, 20, 21])
def test_where_memory_runs_out_nothing_holds_on_to_graphs(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, where: Any, calls: int
) -> None:
    # What is referred to by the failed attempt, a slope or a traceback, would not be given back.
    graphs: list[ref[replayed._Recorded]] = []
    alive: list[int] = []
    tight = False

    def record(forward: Callable[..., Tensor], x: Tensor, *rest: Any) -> replayed._Recorded:
        def short(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            nonlocal calls
            calls -= 1
            if tight and calls < 0 and len(x) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return forward(x, *args, **kwargs)

        kept = recorded(short, x, *rest)
        graphs.append(ref(kept))
        return kept

    def let_go(device: torch.device) -> None:
        forget()
        alive.append(sum(each() is not None for each in graphs))

    monkeypatch.setattr(replayed, "_record", record)
    monkeypatch.setattr(Weights, "_hasten", lambda _, network: replay(network, [], None))
    monkeypatch.setattr(where, "let_go", let_go)
    weights = open_weights(Compute(model=str(model_folder), device="cpu", dtype="fp32"))
    options = sampler_options("mgdm", "fast", ("num_steps=9",), None)
    seen = [
        observation(Picture(picture(i)[:1]), "in", Problem(task="denoise", noise="0.1"), None)
        for i in range(2)
    ]

    def drawn() -> list[Tensor | None]:
        common = weights, Tiling(0, 0), Sampling(method="mgdm", samples=len(seen)), options
        if where is run:
            return [*run.sample_posterior(seen[0], *common).x]
        found = together.sample_together(seen, *common)
        return [None if each is None else each.x for each in found]

    expected, tight = drawn(), True
    forget()
    gc.disable()
    try:
        found = drawn()
    finally:
        gc.enable()
    assert len(graphs) > 1
    assert alive == [0]
    for one, other in zip(found, expected, strict=True):
        if one is not None:
            torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


@pytest.mark.usefixtures("pretended")
def test_it_is_compiled_after_so_many_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    stances: list[str] = []
    eager = torch.compiler.set_stance

    def stance(name: str) -> Any:
        stances.append(name)
        return eager(name)

    monkeypatch.setattr(torch.compiler, "set_stance", stance)
    ours, x, level = Network(), picture(0), torch.ones(2)
    replay(ours, [], 5 * x[:, 0].numel())
    for _ in range(5):
        ours(x, level)
    assert stances == ["force_eager"] * 5
    ours(x, level)
    assert stances == ["force_eager"] * 5


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize(
    "error", [RuntimeError("no compiler"), torch.OutOfMemoryError("no memory")]
)
def test_where_compiling_fails_unasked_it_goes_on_without(
    monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    plain, ours, x, level = Network(), Network(), picture(0), torch.ones(2)
    replay(ours, [], 5 * x[:, 0].numel())

    def record(*args: Any) -> replayed._Recorded:
        if ours.forward._calls[next(iter(ours.forward._calls))] == 6:
            raise error
        return recorded(*args)

    monkeypatch.setattr(replayed, "_record", record)
    for call in range(1, 9):
        if call == 6 and isinstance(error, torch.OutOfMemoryError):
            with pytest.raises(torch.OutOfMemoryError):
                ours(x, level)
            return
        assert torch.equal(ours(x, level), plain(x, level))


COMPILED = """
import sys, torch
from lavps_cli.models.hdit import HDiT, HDiTConfig, layers
from lavps_cli.models.hdit_layers import LevelConfig
level = LevelConfig(
    depth=2, width=32, d_ff=64, d_head=32, attention=sys.argv[1], window=3
)
network = HDiT(HDiTConfig(levels=(level,), mapping_width=32, mapping_d_ff=32))
for weight in network.parameters():
    if weight.ndim > 1:
        torch.nn.init.normal_(weight, std=0.1)
network.requires_grad_(False)
x, noise, found = torch.randn(2, 3, 40, 40, requires_grad=True), torch.zeros(2), []
for _ in range(2):
    out = network(x, noise)
    found.append((out.detach(), *torch.autograd.grad(out.square().sum(), x)))
    for layer in layers(network):
        layer.compile(dynamic=False, fullgraph=True, backend="eager")
for one, other in zip(*found):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
"""


@pytest.mark.parametrize("attention", ["neighbourhood", "shifted_window", "global"])
def test_a_layer_compiles_as_one_graph(attention: str) -> None:
    # In a process of its own: the compiler cannot see through what checks annotations here.
    done = subprocess.run(
        [sys.executable, "-c", COMPILED, attention], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_without_a_cuda_device_nothing_changes() -> None:
    plain, ours, x, level = Network(), Network(), picture(0), torch.ones(2)
    replay(ours, [], None)
    for _ in range(5):
        assert torch.equal(ours(x, level), plain(x, level))
    assert ours.calls == 5


@needs_cuda
def test_on_a_gpu_values_and_slopes_are_the_networks_own() -> None:
    check(torch.device("cuda"), 1e-4)


@needs_cuda
def test_on_a_gpu_forgotten_memory_is_free_again() -> None:
    device = torch.device("cuda")
    ours, level = Network().to(device), torch.ones(2, device=device)
    replay(ours, [], None)
    forget()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    for _ in range(4):
        ours(picture(0, 512, device), level)
    forget()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before + 2**21


@needs_cuda
def test_on_a_gpu_slopes_survive_what_is_played_between() -> None:
    check_between(torch.device("cuda"), 1e-4)
