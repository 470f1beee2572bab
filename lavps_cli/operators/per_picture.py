"""Operators whose parameters differ between the pictures of a batch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lavps_cli.core.operator import LinearOperator
from lavps_cli.errors import UsageError

AXES = {"mask": 4, "kernel": 3}
"""Axes that the parameters of operators have when they differ between pictures."""


def of_rows(A: LinearOperator, rows: slice, device: torch.device) -> LinearOperator:
    """Return the operator with the parameters of some rows, on the device of the pictures."""
    values = {
        name: (value[rows] if value.ndim == AXES[name] else value).to(device)
        for name, value in _tensors(A).items()
    }
    return _with(A, values)


def joined(operators: Sequence[LinearOperator]) -> LinearOperator:
    """Return one operator for a batch from those of its parts.

    Raises:
        UsageError: They differ in what all pictures of a batch share, such as the scale.
    """
    first = operators[0]
    shared = [
        {k: v for k, v in vars(A).items() if not isinstance(v, Tensor)} | {"": type(A)}
        for A in operators
    ]
    if any(each != shared[0] for each in shared):
        raise UsageError(
            "the pictures of a batch have operators of different scales or sizes.",
            "One at a time:  --batch-size 1",
        )
    own = [name for name, value in _tensors(first).items() if value.ndim == AXES[name]]
    return _with(first, {name: torch.cat([_tensors(A)[name] for A in operators]) for name in own})


def _tensors(A: LinearOperator) -> dict[str, Tensor]:
    return {name: value for name, value in vars(A).items() if isinstance(value, Tensor)}


def _with(A: LinearOperator, values: dict[str, Any]) -> LinearOperator:
    return type(A)(**(vars(A) | values)) if values else A
