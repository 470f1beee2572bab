"""What is said of a config.json that makes no sense."""

from lavps_cli.errors import WeightsError


def undescribed(what: str, why: object) -> WeightsError:
    """Return the error for an entry that does not describe what it should."""
    return WeightsError(
        f"config.json does not describe {what}: {why}",
        "The folder may be damaged, or made by another version of lavps.",
    )
