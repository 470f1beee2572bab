"""A network's evaluations as CUDA graphs: all kernels of one are started by a single call.

A GPU is done with a picture of 256x256 sooner than the host can start the hundreds of kernels that
evaluate a network on it. After a few calls with inputs of one kind the kernels are recorded, those
of the gradient too, and played again from then on. All graphs share their memory: of several sizes
of pictures, the largest counts.
"""

import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

WARM_CALLS = 2
"""Calls with inputs of one kind before they are recorded: one picture may need no more."""
MOST_GRAPHS = 16
MOST_COMPILED = 128
"""Kinds of inputs of one layer; beyond, the compiler would leave off without a word."""


def replay(network: nn.Module, blocks: list[nn.Module], compile_after: int | None) -> None:
    """Have a frozen network replay its evaluations on CUDA devices, from now on.

    Args:
        network: Its forward takes pictures, and tensors or None beside them.
        blocks: The layers that are compiled, each by itself: those that are alike are compiled
            once. The network as a whole takes minutes.
        compile_after: Pixels that the network has seen in inputs of one kind before its kernels are
            compiled for it; 0 compiles at once, None never.
    """
    if compile_after is not None:
        torch._dynamo.config.cache_size_limit = MOST_COMPILED
        for block in blocks:
            block.compile(dynamic=False)
    network.forward = _Replaying(network.forward, compile_after)


def forget() -> None:
    """Give up all graphs, and with them their memory, for where it did not suffice.

    They are recorded anew. Without, what a picture's graphs have held would be missing for those of
    smaller windows.
    """
    for each in _replaying:
        each.forget()
    _memories.clear()


@dataclass(eq=False)
class _Memory:
    """What the graphs of a device share, and how often one of them was played."""

    pool: Any
    turn: int = 0


_memories: dict[torch.device, _Memory] = {}


@dataclass(eq=False)
class _Recorded:
    """The graphs of one kind of input."""

    memory: _Memory
    inputs: list[Tensor]
    forward: Callable[[], None]
    output: Tensor
    backward: Callable[[], None] | None = None
    of_output: Tensor | None = None
    of_input: Tensor | None = None

    def play(self, inputs: list[Tensor]) -> int:
        """Leave the result in `output`, and what the gradient needs in memory; return the turn."""
        for place, x in zip(self.inputs, inputs, strict=True):
            place.copy_(x)
        self.forward()
        self.memory.turn += 1
        return self.memory.turn

    def play_back(self, g: Tensor) -> Tensor:
        """Return the gradient by the pictures of what `play` did in this turn."""
        assert self.backward is not None
        assert self.of_output is not None
        assert self.of_input is not None
        self.of_output.copy_(g)
        self.backward()
        self.memory.turn += 1
        return self.of_input.clone()


class _Played(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, recorded: _Recorded, others: list[Tensor]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.recorded, ctx.others = recorded, others
        ctx.turn = recorded.play([x, *others])
        return recorded.output.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        recorded: _Recorded = ctx.recorded
        if recorded.memory.turn != ctx.turn:  # Another graph has used the memory since.
            recorded.play([*ctx.saved_tensors, *ctx.others])
        return recorded.play_back(g), None, None


class _Replaying:
    """The forward of a network; see `replay`."""

    def __init__(self, forward: Callable[..., Tensor], compile_after: int | None) -> None:
        self._forward = forward
        self._compile_after = compile_after
        self._graphs: OrderedDict[tuple[Hashable, bool], _Recorded | None] = OrderedDict()
        """By kind of input, and whether they are compiled; None where nothing can be recorded."""
        self._calls: dict[Hashable, int] = {}
        _replaying.add(self)

    def forget(self) -> None:
        self._graphs.clear()

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        beside = [*args, *kwargs.values()]
        others = [each for each in beside if isinstance(each, Tensor)]
        if not _is_recordable(x) or len(others) + beside.count(None) < len(beside):
            with self._stance(compiled=self._compile_after == 0):
                return self._forward(x, *args, **kwargs)
        slope = torch.is_grad_enabled() and x.requires_grad
        kind: Hashable = (_kind(x), *map(_kind, beside), *kwargs, slope, _precision())
        before = self._calls.get(kind, 0)
        self._calls[kind] = before + 1
        after = self._compile_after
        compiled = after is not None and before * x[:, 0].numel() >= after
        key = kind, compiled
        with self._stance(compiled):
            if key not in self._graphs and before >= WARM_CALLS:
                try:
                    self._keep(key, _record(self._forward, x, args, kwargs, slope))
                except RuntimeError as error:
                    if not compiled or after == 0 or isinstance(error, torch.OutOfMemoryError):
                        raise
                    self._compile_after = sys.maxsize  # Nobody asked for it: it goes on without.
                    return self(x, *args, **kwargs)
            recorded = self._graphs.get(key)
            if recorded is None:
                return self._forward(x, *args, **kwargs)
        self._graphs.move_to_end(key)
        if slope:
            out: Tensor = _Played.apply(x, recorded, others)  # type: ignore[no-untyped-call]
            return out
        recorded.play([x, *others])
        return recorded.output.clone()

    def _keep(self, key: tuple[Hashable, bool], recorded: _Recorded | None) -> None:
        """Keep graphs in place of those that were not compiled, and of the longest unused."""
        self._graphs.pop((key[0], False), None)
        self._graphs[key] = recorded
        if len(self._graphs) > MOST_GRAPHS:
            self._graphs.popitem(last=False)

    def _stance(self, compiled: bool) -> AbstractContextManager[object]:
        """Have compiled layers run as they are written, unless they are to be compiled."""
        if compiled or self._compile_after is None:
            return nullcontext()
        return torch.compiler.set_stance("force_eager")


_replaying: WeakSet[_Replaying] = WeakSet()


def _is_recordable(x: Tensor) -> bool:
    return x.is_cuda


def _kind(x: Tensor | None) -> Hashable:
    return None if x is None else (x.shape, x.dtype, x.device)


def _precision() -> torch.dtype | None:
    return torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None


def _record(
    forward: Callable[..., Tensor],
    x: Tensor,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    slope: bool,
) -> _Recorded | None:
    """Return the graphs of a call, None where its kernels cannot be recorded."""
    places: list[Tensor] = []

    def own(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        places.append(value.detach().clone())
        return places[-1]

    place, others = own(x).requires_grad_(slope), [own(each) for each in args]
    named = {name: own(each) for name, each in kwargs.items()}

    def call() -> Tensor:
        return forward(place, *others, **named)

    aside = torch.cuda.Stream(x.device)  # type: ignore[no-untyped-call]
    here = torch.cuda.current_stream(x.device)
    aside.wait_stream(here)
    with torch.cuda.stream(aside):  # What is made at the first call on a stream is made here.
        out = call()
        of_output = torch.ones_like(out)
        if slope:
            torch.autograd.grad(out, place, of_output)
        del out
    here.wait_stream(aside)
    if x.device not in _memories:
        _memories[x.device] = _Memory(torch.cuda.graph_pool_handle())
    memory = _memories[x.device]
    graphs = [torch.cuda.CUDAGraph() for _ in range(1 + slope)]
    # Other threads decode and write meanwhile.
    how: Any = {"pool": memory.pool, "capture_error_mode": "thread_local"}
    of_input = None
    try:
        with torch.cuda.graph(graphs[0], **how):
            out = call()
        if slope:
            with torch.cuda.graph(graphs[1], **how):
                (of_input,) = torch.autograd.grad(out, place, of_output)
    except RuntimeError:
        torch.cuda.synchronize(x.device)
        return None
    memory.turn += 1
    backward = graphs[1].replay if slope else None
    return _Recorded(
        memory, places, graphs[0].replay, out.detach(), backward, of_output, of_input
    )  # fmt: skip
