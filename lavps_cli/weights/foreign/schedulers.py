"""What the steps of a pipeline of diffusers mean: its scheduler, as the entry `process`."""

from collections.abc import Mapping
from typing import Any

from lavps_cli.errors import UsageError
from lavps_cli.models.discrete import Betas
from lavps_cli.weights.adm import describe_process
from lavps_cli.weights.score import describe_score

DISCRETE = ("DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler")
SCORE = "ScoreSdeVeScheduler"
KNOWN = (*DISCRETE, SCORE)
_BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")
_PREDICTIONS = ("epsilon", "v_prediction", "sample")


def process_of(found: Mapping[str, Any], unet: Mapping[str, Any]) -> dict[str, Any]:
    """Return the process of a scheduler's and a UNet's configuration.

    Raises:
        UsageError: It is none that a prior can be made of; the message tells why.
        KeyError, TypeError, ValueError: A value is of the wrong kind.
    """
    name = found.get("_class_name")
    if name not in KNOWN:
        raise UsageError(f"{name} is not of discrete times, nor a score.")
    # Scores are told the noise itself; steps need an embedding that has values between them.
    time = "fourier" if name == SCORE else "positional"
    if unet.get("time_embedding_type", "positional") != time:
        raise UsageError(
            f"time_embedding_type is {unet.get('time_embedding_type')!r}; with {name} only "
            f"{time!r} is known."
        )
    if name == SCORE:
        if unet.get("num_class_embeds"):
            raise UsageError("scores with classes are not supported.")
        return describe_score(
            float(found.get("sigma_min", 0.01)), float(found.get("sigma_max", 1348.0))
        )
    if found.get("rescale_betas_zero_snr"):
        raise UsageError("rescale_betas_zero_snr is not supported.")
    prediction = str(found.get("prediction_type", "epsilon"))
    if prediction not in _PREDICTIONS:
        raise UsageError(f"prediction_type is {prediction!r}.")
    clips = bool(found.get("clip_sample", name in DISCRETE[:2]))
    clip = float(found.get("clip_sample_range", 1.0)) if clips else None
    return describe_process(_betas(found), prediction, clip)


def _betas(found: Mapping[str, Any]) -> Betas:
    trained = found.get("trained_betas")
    kind = "trained" if trained else found.get("beta_schedule", "linear")
    if kind != "trained" and kind not in _BETAS:
        raise UsageError(f"beta_schedule is {kind!r}.")
    return Betas(
        kind=kind,  # type: ignore[arg-type]
        start=float(found.get("beta_start", 1e-4)),
        end=float(found.get("beta_end", 0.02)),
        count=len(trained) if trained else int(found.get("num_train_timesteps", 1000)),
        trained=tuple(map(float, trained or ())),
    )
