"""The stages of `lavps train`, by name."""

from lavps_cli.catalog import StageName
from lavps_cli.pipeline.stages import aps, conditional, inference, latino, prior
from lavps_cli.pipeline.stages.stage import Stage

STAGES: dict[StageName, Stage] = {
    "inference": inference.STAGE,
    "prior": prior.STAGE,
    "conditional": conditional.STAGE,
    "latino": latino.STAGE,
    "aps": aps.STAGE,
}
