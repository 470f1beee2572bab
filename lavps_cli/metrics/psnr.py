"""Peak signal-to-noise ratio."""

from lavps_cli.core.types import Image, PerImage


def psnr(xhat: Image, x: Image) -> PerImage:
    """Return 10 log10(peak^2 / mean squared error) in dB; the peak-to-peak range is 2."""
    error = (xhat.double() - x.double()).square().mean((1, 2, 3))
    return 10 * (4 / error).log10()
