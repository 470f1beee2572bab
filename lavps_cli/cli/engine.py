"""Options of work on several machines."""

from typing import Annotated

from lavps_cli import catalog
from lavps_cli.cli.params import COMPUTE, option, unset

EngineOption = Annotated[
    catalog.EngineName,
    option(COMPUTE, "--engine", help="ray: the workers of a Ray cluster; paths are theirs."),
]
RayAddress = Annotated[
    str | None,
    unset(
        COMPUTE,
        "--ray-address",
        metavar="auto|ray://HOST:PORT",
        help="Of the cluster; one is started here if not said.",
    ),
]
Actors = Annotated[
    int | None,
    unset(
        COMPUTE,
        "--actors",
        min=1,
        metavar="N",
        help="Workers, each with the model; work begins with the first, and a cluster that can "
        "grows for the others. As many as there is room for if not said.",
    ),
]
ActorGpus = Annotated[
    float | None,
    unset(
        COMPUTE,
        "--actor-gpus",
        min=0.0,
        metavar="X",
        help="GPUs of each, 0.5 for two on one; 1 if not said and there are some.",
    ),
]
