"""Networks too large for one device: every process holds a share of each parameter (FSDP2).

States are written whole, so that a checkpoint depends neither on the number of processes nor on
how they divide the work.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Replicate

from lavps_cli.training.processes import world


def shard(network: nn.Module, device: torch.device, methods: Iterable[str] = ()) -> None:
    """Divide the parameters of a network among all processes, block by block.

    Args:
        network: On the device of this process.
        device: That device.
        methods: Other methods than `forward` that are called from outside.
    """
    mesh = init_device_mesh(device.type, (world(),))
    lists = [module for module in network.modules() if isinstance(module, nn.ModuleList)]
    for block in (child for each in lists for child in each):
        if not isinstance(block, nn.ModuleList):
            fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)
    for name in methods:
        register_fsdp_forward_method(network, name)


def set_sync(network: nn.Module, value: bool) -> None:
    """Say whether the next backward pass averages the gradient over all processes."""
    if isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(value)


def release(network: nn.Module) -> None:
    """Let torch's memory of a divided network no longer hold the processes' group.

    What torch keeps of operations on divided tensors refers to their mesh, and the mesh to the
    group. Threads of a group that lives on when the interpreter ends abort the process where they
    still have a tensor to free. The network is of no use any more.
    """
    for parameter in network.parameters():
        if isinstance(parameter, DTensor):
            getattr(parameter.device_mesh, "_pg_registry", {}).clear()


def gathered_state(value: Any) -> Any:
    """Return a state with every divided tensor gathered; all processes have to call it."""
    if isinstance(value, DTensor):
        return value.full_tensor()
    if isinstance(value, dict):
        return {key: gathered_state(each) for key, each in value.items()}
    if isinstance(value, list):
        return [gathered_state(each) for each in value]
    return value


def like(value: Tensor, pattern: Tensor) -> Tensor:
    """Return a whole tensor, the same in all processes, divided as `pattern` is."""
    if not isinstance(pattern, DTensor):
        return value
    copies = DTensor.from_local(value, pattern.device_mesh, [Replicate()], run_check=False)
    return copies.redistribute(placements=pattern.placements)


def load_optimizer(optim: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a whole state into an optimiser whose parameters may be divided."""
    optim.load_state_dict(state)
    for group in optim.param_groups:
        for parameter in group["params"]:
            own = optim.state[parameter]
            for name, value in own.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    own[name] = like(value, parameter)
