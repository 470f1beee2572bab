"""What a command asks for, as the flags say it. None means: not given."""

from dataclasses import dataclass

from lavps_cli.catalog import (
    AlphaName,
    ArchName,
    BoundaryName,
    CostName,
    CropName,
    DepthName,
    DtypeName,
    EngineName,
    ExistingName,
    FormatName,
    MetadataName,
    OptimizerName,
    ParallelName,
    PresetName,
    StageName,
    SwitchName,
    TaskName,
    TrainPresetName,
)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong with the pictures."""

    task: TaskName | None = None
    scale: int | None = None
    downsample: str | None = None
    kernel: str | None = None
    kernel_intensity: float | None = None
    kernel_seed: int | None = None
    blind: bool = False
    """Whether the kernel is estimated, within the size that `kernel` gives."""
    boundary: BoundaryName = "auto"
    mask: str | None = None
    invert_mask: bool = False
    resize_mask: bool = False
    jpeg_quality: int | None = None
    gain: float | None = None
    noise: str = "auto"


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the posterior is sampled."""

    method: str = "lavps"
    preset: PresetName = "balanced"
    budget: str | None = None
    """Seconds of a picture, which the preset gives way to."""
    settings: tuple[str, ...] = ()
    """`name=value` texts."""
    samples: int = 1
    mean: bool = False
    uncertainty: str | None = None
    intervals: float | None = None
    """In percents."""
    seed: int = 0
    keep_known: bool = True
    coarse: bool = True
    simulate: bool = False


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Which weights, and where they run."""

    model: str = "default"
    inference: str | None = None
    label: int | None = None
    """Class of a prior that was trained with labels."""
    offline: bool = False
    device: str = "auto"
    dtype: DtypeName = "auto"
    tile: str = "auto"
    overlap: int | None = None
    batch_size: str = "auto"
    compile: SwitchName = "auto"
    threads: str = "auto"
    max_pixels: str = "200M"


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Over which machines."""

    engine: EngineName = "local"
    address: str | None = None
    """Of a Ray cluster; None starts one here."""
    actors: int | None = None
    gpus: float | None = None
    """Of an actor; None: one where the cluster has some."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where results go."""

    output: str | None = None
    format: FormatName = "auto"
    quality: int = 95
    bit_depth: DepthName = "auto"
    metadata: MetadataName = "keep"
    alpha: AlphaName = "keep"
    compare: bool = False
    existing: ExistingName = "resume"


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which pictures are meant, beside those named one by one."""

    recursive: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    limit: int | None = None
    files_from: str | None = None
    null: bool = False
    """Whether NUL ends the names of that list."""
    manifest: str | None = None
    shard: str | None = None


@dataclass(frozen=True, kw_only=True)
class Restoration:
    """Everything that `restore` is asked."""

    inputs: tuple[str, ...]
    problem: Problem = Problem()
    sampling: Sampling = Sampling()
    compute: Compute = Compute()
    output: Output = Output()
    page: int | None = None
    """Which picture of files that hold several, from 1."""
    select: Selection = Selection()
    journal: str | None = None
    fail_fast: bool = False
    gpus: str | None = None
    spread: Spread = Spread()
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class DegradationRequest:
    """Everything that `degrade` is asked."""

    inputs: tuple[str, ...]
    problem: Problem = Problem()
    output: Output = Output()
    seed: int = 0
    sidecar: bool = False
    save_mask: str | None = None
    page: int | None = None
    max_pixels: str = "200M"
    select: Selection = Selection()
    fail_fast: bool = False
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """Everything that `train` is asked."""

    dataset: tuple[str, ...]
    output: str
    stage: StageName = "inference"
    arch: ArchName = "palette"
    prior: str = "default"
    label: int | None = None
    offline: bool = False
    operators: str = (
        "2*sr:4,sr:2,2*deblur:7-27@0-1,gaussian:7-27,inpaint:centre,inpaint:rect,"
        "inpaint:pixels@0.3-0.95,denoise+0.1"
    )
    switch_ratio: float = 0.0
    adversarial: float = 0.0
    preset: TrainPresetName = "small"
    resolution: str = "64"
    duration: str = "20k"
    shares: str | None = None
    crop: CropName = "auto"
    batch_size: int = 48
    batch_gpu: int | None = None
    lr: float | None = None
    warmup: int = 200
    weight_decay: float = 1e-2
    ema: float = 0.998
    optimizer: OptimizerName = "auto"
    dtype: DtypeName = "auto"
    compile: SwitchName = "auto"
    parallel: ParallelName = "ddp"
    device: str = "auto"
    threads: str = "auto"
    seed: int = 0
    start_from: str | None = None
    resume: str = "auto"
    save_every: int = 500
    keep: int = 3
    sample_every: int = 1000
    validation: str | None = None
    eval_every: int = 1000
    log_every: int = 50
    max_time: str | None = None
    log: str = "jsonl"
    licence: str | None = None
    cache: str | None = None
    push: str | None = None
    public: bool = False
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class BenchmarkRequest:
    """Everything that `benchmark` is asked."""

    output: str
    budgets: tuple[str, ...] = ()
    tasks: str = "sr,deblur,inpaint"
    ood: str = "auto"
    dataset: str = "builtin"
    images: int | None = None
    size: int = 128
    methods: str = "lavps,mgdm"
    metrics: str = "psnr,ssim,lpips"
    own_metrics: tuple[str, ...] = ()
    preset: PresetName = "balanced"
    curve: int | None = None
    """Each method is measured at all its numbers of steps that take at most so many evaluations."""
    settings: tuple[str, ...] = ()
    """`name=value` texts, for all methods."""
    coverage: int = 0
    compute: Compute = Compute()
    spread: Spread = Spread()
    seed: int = 0
    max_time: str = "10m"
    save_pictures: bool = False
    compare: str | None = None
    fail_under: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CalibrationRequest:
    """Everything that `calibrate-speedup` is asked."""

    output: str
    task: str = "deblur"
    dataset: str = "builtin"
    images: int | None = None
    validation: int = 32
    size: int = 128
    metric: str | None = None
    margin: float | None = None
    level: float = 0.05
    grid: str = "quick"
    cost: CostName = "time"
    batch: int = 1
    """Images that are restored at once."""
    max_time: str | None = None
    training_time: str | None = None
    compute: Compute = Compute()
    spread: Spread = Spread()
    seed: int = 0
    save: bool = True
