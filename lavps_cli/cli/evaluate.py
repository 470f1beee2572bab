"""lavps evaluate."""

from typing import Annotated

import typer

from lavps_cli.cli import measuring, params
from lavps_cli.cli.errors import reported
from lavps_cli.cli.output import json_line
from lavps_cli.cli.params import MOST_USED, option
from lavps_cli.cli.progress import Terminal

EPILOG = """Examples:

lavps evaluate fixed/ originals/

lavps evaluate out.png reference.png --metrics psnr --json
"""


@reported
def evaluate(
    restored: Annotated[str, typer.Argument(metavar="OUT", help="A picture, or a folder.")],
    reference: Annotated[str, typer.Argument(metavar="REF", help="The same, clean.")],
    metrics: measuring.Metrics = "psnr,ssim,lpips",
    own_metrics: measuring.OwnMetrics = None,
    resize: Annotated[
        bool, option(MOST_USED, "--resize", help="Scale restored pictures to their references.")
    ] = False,
    border: Annotated[
        int, option(MOST_USED, "--border", min=0, help="Pixels that are cut off on every side.")
    ] = 0,
    offline: params.Offline = False,
    config: params.Config = None,
    as_json: params.Json = False,
    quiet: params.Quiet = False,
    verbose: params.Verbose = 0,
) -> None:
    """Score restored pictures against references.

    Pairs are found by name, without suffix and `.restored`. Grey counts as three equal channels;
    what is transparent is laid over black.
    """
    from lavps_cli.pipeline.scores import EvaluationRequest
    from lavps_cli.pipeline.scores import evaluate as run
    from lavps_cli.pipeline.tables import evaluation_table, metric_lines, text_of

    request = EvaluationRequest(
        restored=restored,
        reference=reference,
        metrics=metrics,
        own_metrics=tuple(own_metrics or ()),
        resize=resize,
        border=border,
        offline=offline,
    )
    with Terminal("none", quiet=quiet, verbose=verbose) as terminal:
        result = run(request, terminal)
        if as_json:
            json_line(result.told)
        else:
            typer.echo(text_of(evaluation_table(result)))
            for line in metric_lines(result.about):
                terminal.note(line)
    raise typer.Exit(result.exit_code)
