"""Which devices compute in bfloat16 rather than imitate it."""

import torch


def multiplies_bf16(device: torch.device) -> bool:
    """Return whether a device has instructions for products of bfloat16.

    CPUs without them are hundreds of times slower in bfloat16 than in float32.
    """
    if device.type == "cpu":
        asked = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in _INSTRUCTIONS)
        return any(bool(ask()) for ask in asked if ask is not None)
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return True


_INSTRUCTIONS = ("avx512_bf16", "amx_tile")
