"""Everything that is chosen by name: tasks, samplers, metrics, presets, formats; no torch."""

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal, TypeAlias

from lavps_cli.errors import UsageError, suggestion

TaskName: TypeAlias = Literal[
    "sr",
    "deblur",
    "inpaint",
    "denoise",
    "colorize",
    "jpeg",
    "declip",
    "deblur+inpaint",
    "sr+inpaint",
]
DOWNSAMPLES = ("area", "bicubic")
BoundaryName: TypeAlias = Literal["auto", "valid", "reflect", "circular", "replicate"]
PresetName: TypeAlias = Literal["fast", "balanced", "best"]
DtypeName: TypeAlias = Literal["auto", "fp32", "bf16", "fp16"]
FormatName: TypeAlias = Literal["auto", "png", "jpg", "webp", "tiff", "avif", "npy"]
DepthName: TypeAlias = Literal["auto", "8", "16"]
MetadataName: TypeAlias = Literal["keep", "strip"]
AlphaName: TypeAlias = Literal["keep", "drop", "restore"]
ExistingName: TypeAlias = Literal["resume", "error", "skip", "overwrite"]
EngineName: TypeAlias = Literal["local", "ray"]
StageName: TypeAlias = Literal["inference", "prior", "conditional", "latino", "aps"]
WeightsKind: TypeAlias = Literal["denoiser", "inference", "conditional", "latino", "aps"]
ArchName: TypeAlias = Literal["palette", "invfusion"]
TrainPresetName: TypeAlias = Literal["tiny", "small", "base"]
CropName: TypeAlias = Literal["auto", "whole", "random"]
OptimizerName: TypeAlias = Literal["auto", "muon", "adamw"]
SwitchName: TypeAlias = Literal["auto", "on", "off"]
ParallelName: TypeAlias = Literal["ddp", "fsdp"]
CostName: TypeAlias = Literal["time", "evaluations"]

SCALES = range(2, 17)
"""Factors of enlargement."""
MOST_SAMPLES = 10_000
"""Of one picture: all are held until the last one is drawn."""

TASKS: dict[str, str] = {
    "sr": "enlarge a small picture",
    "deblur": "undo a blur whose kernel is known",
    "inpaint": "fill the missing part of a picture",
    "denoise": "remove noise",
    "colorize": "give a grey picture colours",
    "jpeg": "undo the compression of a JPEG",
    "declip": "bring back what is burnt out or drowned",
    "deblur+inpaint": "undo a blur where a part is missing, too",
    "sr+inpaint": "enlarge where a part is missing, too",
}
MASKED = "+inpaint"
"""What a task's name ends with where a part of the damaged picture is missing, too."""


def has_holes(task: str) -> bool:
    """Return whether a part of the damaged picture is missing, which a mask tells."""
    return task == "inpaint" or task.endswith(MASKED)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How far a sampler goes: options with an inference model, and without one."""

    warm: dict[str, int | float | str]
    cold: dict[str, int | float | str]


PRESETS: dict[str, Preset] = {
    "fast": Preset(
        warm={
            "num_steps": 8,
            "grad_steps_start": 2,
            "grad_steps_end": 0,
            "switch_ratio": 0.0,
            "settle": 3,
            "data_step": True,
        },
        cold={"num_steps": 18, "grad_steps_start": 2, "grad_steps_end": 2, "data_step": True},
    ),
    "balanced": Preset(
        warm={
            "num_steps": 16,
            "grad_steps_start": 2,
            "grad_steps_end": 0,
            "switch_ratio": 0.0,
            "switch_back": 0.7,
            "data_step": True,
        },
        cold={"num_steps": 60, "grad_steps_start": 2, "grad_steps_end": 2, "data_step": True},
    ),
    "best": Preset(
        warm={
            "num_steps": 40,
            "grad_steps_start": 2,
            "grad_steps_end": 0,
            "switch_ratio": 0.0,
            "switch_back": 0.7,
            "data_step": True,
        },
        cold={"num_steps": 200, "grad_steps_start": 2, "grad_steps_end": 2, "data_step": True},
    ),
}


def _steps(fast: int, balanced: int, best: int, **common: float | str) -> dict[str, Preset]:
    """Return presets that differ in the number of steps; `common` are options of all of them."""
    numbers = {"fast": fast, "balanced": balanced, "best": best}
    options = {name: {"num_steps": n} | common for name, n in numbers.items()}
    return {name: Preset(warm=each, cold=each) for name, each in options.items()}


STEPS = (8, 15, 26, 50, 100, 200, 400)


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """One posterior sampler."""

    function: str
    options: str
    inference: WeightsKind | None
    """What may be trained for it beside a prior."""
    summary: str
    evaluations: str
    """Takes options and whether there is an inference model; returns forward and backward ones."""
    pictures: int = 13
    """Pictures that a step holds at once, beside what the network and the operator do; a test
    counts them."""
    spectral: bool = False
    """Whether it needs the singular vectors of the operator."""
    trained: WeightsKind | None = None
    """What it samples with in the place of a prior: networks that know the observation."""
    presets: dict[str, Preset] = field(default_factory=lambda: PRESETS)
    steps: tuple[int, ...] = STEPS
    """Numbers of diffusion steps that a budget of time is filled with."""


SAMPLERS: dict[str, Sampler] = {
    "lavps": Sampler(
        function="lavps_cli.samplers.lavps:lavps",
        options="lavps_cli.samplers.lavps:LavpsOptions",
        inference="inference",
        evaluations="lavps_cli.samplers.lavps:evaluations",
        summary="mixture-guided sampling with learnt starts (Algorithm 2)",
    ),
    "mgdm": Sampler(
        function="lavps_cli.samplers.lavps:lavps",
        options="lavps_cli.samplers.lavps:LavpsOptions",
        inference=None,
        evaluations="lavps_cli.samplers.lavps:evaluations",
        summary="the same without an inference model",
    ),
    "dps": Sampler(
        function="lavps_cli.samplers.dps:dps",
        options="lavps_cli.samplers.dps:DpsOptions",
        inference=None,
        evaluations="lavps_cli.samplers.dps:evaluations",
        pictures=8,
        summary="diffusion posterior sampling (Chung et al. 2023)",
        presets=_steps(50, 150, 1000),
    ),
    "ddrm": Sampler(
        function="lavps_cli.samplers.ddrm:ddrm",
        options="lavps_cli.samplers.ddrm:DdrmOptions",
        inference=None,
        evaluations="lavps_cli.samplers.ddrm:evaluations",
        spectral=True,
        pictures=9,
        summary="denoising diffusion restoration models (Kawar et al. 2022)",
        presets=_steps(10, 20, 100),
        steps=(10, 20, 50, 100),
    ),
    "ddnm": Sampler(
        function="lavps_cli.samplers.ddnm:ddnm",
        options="lavps_cli.samplers.ddnm:DdnmOptions",
        inference=None,
        evaluations="lavps_cli.samplers.ddnm:evaluations",
        spectral=True,
        pictures=10,
        summary="DDNM+: null-space drawing (Wang et al. 2023)",
        presets=_steps(25, 100, 1000),
        steps=(20, 50, 100, 200, 500, 1000),
    ),
    "pigdm": Sampler(
        function="lavps_cli.samplers.pigdm:pigdm",
        options="lavps_cli.samplers.pigdm:PigdmOptions",
        inference=None,
        evaluations="lavps_cli.samplers.pigdm:evaluations",
        pictures=7,
        summary="pseudo-inverse guidance (Song et al. 2023)",
        presets=_steps(20, 100, 500),
        steps=(10, 20, 50, 100, 200, 500),
    ),
    "diffpir": Sampler(
        function="lavps_cli.samplers.diffpir:diffpir",
        options="lavps_cli.samplers.diffpir:DiffpirOptions",
        inference=None,
        evaluations="lavps_cli.samplers.diffpir:evaluations",
        pictures=5,
        summary="plug-and-play by splitting (Zhu et al. 2023)",
        presets=_steps(20, 100, 500),
        steps=(10, 20, 50, 100, 200, 500),
    ),
    "daps": Sampler(
        function="lavps_cli.samplers.daps:daps",
        options="lavps_cli.samplers.daps:DapsOptions",
        inference=None,
        evaluations="lavps_cli.samplers.daps:evaluations",
        pictures=8,
        summary="decoupled annealing (Zhang et al. 2025)",
        presets=_steps(25, 60, 200),
        steps=(10, 20, 50, 100, 200),
    ),
    "reddiff": Sampler(
        function="lavps_cli.samplers.reddiff:reddiff",
        options="lavps_cli.samplers.reddiff:ReddiffOptions",
        inference=None,
        evaluations="lavps_cli.samplers.reddiff:evaluations",
        pictures=15,
        summary="RED-diff: one picture by optimisation (Mardani et al. 2024)",
        presets=_steps(50, 200, 1000),
        steps=(20, 50, 100, 200, 500, 1000),
    ),
    "mgps": Sampler(
        function="lavps_cli.samplers.mgps:mgps",
        options="lavps_cli.samplers.mgps:MgpsOptions",
        inference=None,
        evaluations="lavps_cli.samplers.mgps:evaluations",
        pictures=30,
        summary="midpoint guidance (Moufad et al. 2025)",
        presets=_steps(15, 50, 300),
        steps=(10, 20, 50, 100, 200, 300),
    ),
    "conditional": Sampler(
        function="lavps_cli.samplers.ode:ode",
        options="lavps_cli.samplers.ode:OdeOptions",
        inference=None,
        trained="conditional",
        evaluations="lavps_cli.samplers.ode:evaluations",
        pictures=8,
        summary="a denoiser trained on pairs (InvFusion, Palette), along its probability flow",
        # Heun's steps and the ratios of EDM leave noise at few evaluations (benchmarks/RESULTS.md).
        presets=_steps(6, 12, 50, solver="euler", ratio_max=20.0, ratio_min=0.1),
        steps=(1, 2, 3, 6, 12, 25, 50, 100),
    ),
    "latino": Sampler(
        function="lavps_cli.samplers.latino:latino",
        options="lavps_cli.samplers.latino:LatinoOptions",
        inference="latino",
        evaluations="lavps_cli.samplers.latino:evaluations",
        pictures=6,
        summary="a few steps of a split Langevin chain, unfolded and trained (LATINO, UD2M)",
        presets={name: Preset(warm={}, cold={}) for name in PRESETS},
        steps=(3,),
    ),
    "aps": Sampler(
        function="lavps_cli.samplers.aps:aps",
        options="lavps_cli.samplers.aps:ApsOptions",
        inference=None,
        trained="aps",
        evaluations="lavps_cli.samplers.aps:evaluations",
        pictures=8,
        summary="a conditional flow: one evaluation is a sample (APS, Mammadov et al. 2024)",
        presets={name: Preset(warm={}, cold={}) for name in PRESETS},
        steps=(1,),
    ),
}


BENCHMARKS: dict[str, tuple[str, str]] = {
    "sr": ("sr:4", "sr:8"),
    "deblur": ("deblur:21@0.9", "deblur:35@0.3"),
    "inpaint": ("inpaint:rect", "inpaint:pixels@0.8-0.85"),
    "denoise": ("denoise+0.1", "denoise+0.2"),
    "colorize": ("colorize", "colorize+0.2"),
}
"""Families of operators of a task: the usual ones, and those that the protocol calls out of
distribution (what a model was trained on, its card says)."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One way to compare restored pictures with clean ones."""

    function: str
    """Takes pictures, or embeddings (cmmd); what needs weights (lpips) is a class."""
    higher: bool
    """Whether higher is better."""
    about: dict[str, str]
    """What the value depends on: range, border, net, version."""


METRICS: dict[str, Metric] = {
    "psnr": Metric(
        function="lavps_cli.metrics.psnr:psnr",
        higher=True,
        about={"unit": "dB", "range": "[-1, 1], peak to peak 2", "border": "none", "version": "1"},
    ),
    "ssim": Metric(
        function="lavps_cli.metrics.ssim:ssim",
        higher=True,
        about={
            "range": "[0, 1]",
            "border": "5 pixels, where the window of 11 leaves the picture",
            "version": "Gaussian 1.5, population covariance",
        },
    ),
    "lpips": Metric(
        function="lavps_cli.metrics.lpips:Lpips",
        higher=False,
        about={"range": "[-1, 1]", "border": "none", "net": "alex", "version": "0.1"},
    ),
    "cmmd": Metric(
        function="lavps_cli.metrics.cmmd:cmmd",
        higher=False,
        about={
            "range": "[0, 1], resized to 336 bicubically",
            "border": "none",
            "net": "CLIP ViT-L/14@336",
            "version": "Gaussian kernel of 10, biased estimate, not times 1000",
        },
    ),
}


def resolve(reference: str) -> Any:
    """Return what "module:name" names."""
    module, name = reference.split(":")
    return getattr(import_module(module), name)


def sampler(name: str) -> Sampler:
    """Return the sampler of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in SAMPLERS:
        raise UsageError(f"there is no method {name!r}.", suggestion(name, list(SAMPLERS)))
    return SAMPLERS[name]
