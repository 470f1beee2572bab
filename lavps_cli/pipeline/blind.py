"""`--blind`: the kernel of a picture from the picture alone."""

import torch

from lavps_cli.blind.estimate import estimate_kernel
from lavps_cli.images.alpha import solid_colours
from lavps_cli.images.picture import Picture
from lavps_cli.pipeline.degradation import blind_size, check_kernel
from lavps_cli.pipeline.kernels import KernelChoice
from lavps_cli.pipeline.requests import Problem


def blind_kernel(
    picture: Picture, name: str, problem: Problem, sigma_y: float, warnings: list[str]
) -> tuple[KernelChoice, float]:
    """Return the estimated kernel and the deviation that its error makes, and warn of doubts.

    Args:
        picture: Blurred.
        name: What messages call it.
        problem: With the size of the support.
        sigma_y: Deviation of the noise, on the [-1, 1] scale.
        warnings: Gets one more where the estimate is not confident.

    Raises:
        DataError: The picture is too small for the kernel.
    """
    size = blind_size(problem)
    check_kernel(KernelChoice(torch.zeros(size, size), {}), picture, name)
    found = estimate_kernel(solid_colours(picture.pixels, picture.alpha), size, sigma_y)
    confidence = round(found.confidence, 3)
    if not found.confident:
        warnings.append(
            f"the kernel estimated from {name} is doubtful: confidence {confidence:.2f} of 1. "
            "Look at the kernel that is written, try another size, or give a measured one with "
            "--kernel FILE."
        )
    about = {"type": "estimated", "size": size, "source": "estimated", "confidence": confidence}
    return KernelChoice(found.kernel, about), found.doubt
