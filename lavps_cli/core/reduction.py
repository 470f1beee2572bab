"""What every operator that makes pictures smaller asks of them."""

from lavps_cli.core.types import Images
from lavps_cli.errors import DataError, UsageError


def check_scale(scale: int) -> None:
    """Check a factor of reduction.

    Raises:
        UsageError: It is below 1.
    """
    if scale < 1:
        raise UsageError(f"scale {scale} is not a positive whole number.", "Try scale 4.")


def check_whole(x: Images, rows: int, columns: int, lack: str) -> None:
    """Check that pictures consist of whole parts.

    Args:
        x: The pictures.
        rows: Height of a part in pixels.
        columns: Its width.
        lack: What a picture of another size does not do, as messages say it.

    Raises:
        DataError: They do not.
    """
    h, w = x.shape[-2:]
    if h % rows or w % columns:
        raise DataError(
            f"A picture of {w} x {h} pixels does not {lack}.",
            f"Crop it to {w - w % columns} x {h - h % rows} pixels.",
        )
