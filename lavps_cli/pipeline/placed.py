"""Operators beside the pictures that they are applied to."""

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from lavps_cli.core.operator import Operator
from lavps_cli.operators.jpeg import JpegCoefficients

A = TypeVar("A")


def on_device(operator: A, device: torch.device) -> A:
    """Return an operator with its masks and kernels on a device, those of its parts as well.

    It would work without, but copy them at every call, for which host and device wait for one
    another. Tables of JPEG stay on the host: its matrices are looked up by them, for each device.
    """
    if not is_dataclass(operator) or isinstance(operator, JpegCoefficients | type):
        return operator
    changes: dict[str, Any] = {}
    for field in fields(operator):
        value = getattr(operator, field.name)
        if isinstance(value, Tensor):
            changes[field.name] = value.to(device)
        elif isinstance(value, Operator):
            changes[field.name] = on_device(value, device)
    return replace(operator, **changes) if changes else operator
