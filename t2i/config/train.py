"""Everything that decides how a model is trained."""

from __future__ import annotations

from dataclasses import dataclass

from t2i.config.colours import check_colour
from t2i.config.durations import minutes
from t2i.config.fields import Config, flag_of, option
from t2i.errors import UsageError

OWN_PARTS = ("scratch", "vae", "clip", "unet")
ON_A_BASE = ("lora", "full", "dreambooth", "textual-inversion", "controlnet")
METHODS = (*ON_A_BASE, "classifier", *OWN_PARTS)
BUCKETED = ("lora", "full", "dreambooth", "textual-inversion")
COMPILED = (*BUCKETED, *OWN_PARTS)
MIRRORED = (*BUCKETED, "classifier", *OWN_PARTS)  # conditioning pictures are not mirrored
DENOISING = (*ON_A_BASE, "scratch", "unet")
LR_SCHEDULERS = ("cosine-tail", "constant", "cosine", "linear", "polynomial")
OPTIMIZERS = ("adamw", "adamw8bit", "muon")
TRACKERS = ("auto", "none", "tensorboard", "wandb")
CAPTION_SOURCES = ("auto", "metadata", "sidecar", "names", "folders", "none")


@dataclass(frozen=True)
class RunOptions(Config):
    """What every `t2i train` run is told; `TrainConfig` adds what single methods look at.

    `None` means not given: the method's or the base model's own default is used.
    """

    dataset: str = option(
        "",
        "folder of pictures, with metadata.jsonl/.csv, .txt files or names as captions; or parquet or "
        "webdataset .tar files, a folder of them, or owner/name[@REVISION][:SPLIT] of the Hub",
    )
    output: str = option("runs/train", "run folder: logs, checkpoints, samples and model/", "-o")
    method: str = option(
        "lora", "what to train; scratch = vae, clip, unet in order, without a base model", choices=METHODS
    )
    model: str | None = option(
        None,
        "base model: alias, Hub id, folder or file; for scratch, vae, clip, unet a folder whose parts are "
        "the start; default: pocket, or OUTPUT/parts where it exists",
        "-m",
    )
    captions: str = option("auto", "where captions come from", choices=CAPTION_SOURCES)
    image_column: str | None = option(
        None, "column of pictures, in metadata of their names; default: file_name, else image, jpg, png, webp"
    )
    caption_column: str | None = option(
        None, "column of captions; default: text, and where it is no folder also caption, txt, prompt"
    )
    dataset_config: str | None = option(None, "variant of a dataset of the Hub", "--dataset-config-name")
    offline: bool = option(False, "never use the network")
    follow_symlinks: bool = option(False, "read links that lead out of the dataset too")
    max_bad: float = option(
        0.01, "share of the pictures that may be left out because they cannot be decoded", low=0, high=1
    )
    alpha_background: str = option("white", "what transparent pictures lie on: white, black, #rrggbb")
    random_flip: bool = option(
        False, "see mirror images too; not for pictures with writing or sides", only=MIRRORED
    )
    buckets: bool = option(
        False, "keep aspect ratios: sizes of about the area of --resolution; default: cut squares",
        "--enable-bucket", only=BUCKETED,
    )  # fmt: skip
    bucket_step: int | None = option(
        None, "sides of buckets are multiples of it; default: 64, or 8 below 256 pixels",
        "--bucket-reso-steps", low=8, high=512, multiple_of=8, unit="pixels", only=BUCKETED,
    )  # fmt: skip
    bucket_min: int | None = option(
        None, "shortest side of a bucket; default: half of --resolution", "--min-bucket-reso",
        low=8, high=8192, unit="pixels", only=BUCKETED,
    )  # fmt: skip
    bucket_max: int | None = option(
        None, "longest side of a bucket; default: twice --resolution", "--max-bucket-reso",
        low=8, high=8192, unit="pixels", only=BUCKETED,
    )  # fmt: skip
    bucket_upscale: bool = option(
        True, "enlarge pictures that are smaller than their bucket; else they get a smaller one",
        only=BUCKETED,
    )  # fmt: skip
    resolution: int = option(
        None,
        "side of the square training pictures; default: the base model's, else 64",
        low=16,
        high=1024,
        multiple_of=8,
        unit="pixels",
    )
    overwrite: bool = option(False, "replace what is there; a run that is not resumed is trained anew")
    seed: int = option(
        0, "decides weights, data order, noise and caption dropout", "-s", low=0, high=2**31 - 1
    )
    device: str = option("auto", "auto, cuda, mps, xpu or cpu")
    mixed_precision: str = option(
        "auto",
        "format of the arithmetic; fp16 scales the loss; auto takes bf16 where that is faster",
        choices=("auto", "no", "bf16", "fp16"),
    )
    num_processes: int = option(
        1, "processes that share every batch on a CPU; often faster than as many threads", low=1, high=128
    )
    compile: bool = option(
        False,
        "torch.compile UNet and VAE: minutes at the start, faster steps; a CPU needs a C++ compiler",
        only=COMPILED,
    )

    max_train_steps: int | None = option(
        None, "optimizer steps of each stage; default: the method's", "--steps", low=1, high=10_000_000
    )
    epochs: int | None = option(
        None,
        "passes of each stage over the training pictures, instead of --steps; default: none",
        "--num-train-epochs",
        low=1,
        high=1_000_000,
    )
    max_train_time: float | None = option(
        None,
        "stop each stage with a checkpoint after this long, the encoding of its pictures included: 90s, "
        "20m, 2h, or a number of minutes; default: no limit",
        above=0,
        unit="minutes",
        parse=minutes,
    )
    batch_size: int = option(
        None,
        "pictures per forward pass, shared by all processes; default: 64 from scratch, 8 on pocket, else 1",
        "--train-batch-size",
        low=1,
        high=4096,
    )
    gradient_accumulation_steps: int = option(
        1, "forward passes whose gradients make one step: a larger batch in less memory", low=1, high=4096
    )
    optimizer: str = option(
        "adamw",
        "adamw8bit keeps its state in a quarter of the memory (t2i[adamw8bit]); muon needs fewer steps from "
        "scratch, each a little longer",
        choices=OPTIMIZERS,
    )
    learning_rate: float | None = option(
        None, "peak learning rate; default: the method's", "--lr", above=0, high=1
    )
    lr_scheduler: str = option(
        "cosine-tail",
        "how the rate falls after the warm-up; cosine-tail: flat, then a cosine over the last --lr-decay",
        choices=LR_SCHEDULERS,
    )
    lr_power: float = option(2.0, "exponent of --lr-scheduler polynomial", above=0, high=10)
    lr_warmup_steps: int = option(100, "steps of linear rise at the start", low=0, high=1_000_000)
    lr_decay: float = option(
        0.3, "share of the steps, at the end, over which the rate falls to zero along a cosine", low=0, high=1
    )
    weight_decay: float = option(0.01, "AdamW weight decay", low=0, high=1)
    max_grad_norm: float = option(1.0, "gradients are scaled down to this length", above=0, high=1000)
    ema_decay: float = option(
        0.9995, "how slowly the averaged weights follow; 0 = no averaging", "--ema", low=0, high=0.99999
    )

    checkpointing_steps: int = option(500, "steps between checkpoints", low=1, high=1_000_000)
    checkpoints_total_limit: int = option(2, "checkpoints kept", low=1, high=1000)
    resume: str | None = option(
        None, "latest, or a checkpoint folder: continue to the same bits", "--resume-from-checkpoint"
    )
    handoff: str | None = option(
        None,
        "continue the stage of a handoff file (give its --method; for unet also --model with the trained "
        "parts): bf16 weights, fresh optimizer, recorded as not exact",
    )
    save_handoff: str | None = option(
        None,
        "also write a small handoff file (at most 60 MiB) at each checkpoint, to carry the stage elsewhere",
    )
    log_steps: int = option(10, "steps between lines in metrics.jsonl", low=1, high=1_000_000)
    sample_steps: int = option(500, "steps between sample sheets", low=1, high=1_000_000)
    save_dtype: str = option(
        "fp32", "number format of what is made", choices=("fp32", "fp16", "bf16"), only=DENOISING
    )
    validation_split: float = option(
        0.0,
        "share of the pictures held out for the validation loss, chosen by their bytes",
        low=0,
        high=0.5,
    )
    validation_steps: int | None = option(
        None,
        "steps between validation losses; default: as --checkpointing-steps",
        low=1,
        high=1_000_000,
    )
    report_to: str = option(
        "auto",
        "where figures go besides metrics.jsonl; auto: to TensorBoard where that is installed",
        choices=TRACKERS,
    )
    memorisation_samples: int = option(
        16,
        "pictures drawn at the end to be compared with the training pictures; 0 = no comparison",
        low=0,
        high=256,
        only=("lora", "full", "dreambooth", "scratch", "unet"),
    )
    sample_prompts: tuple[str, ...] = option(
        (),
        "prompts of the sample sheets; default: captions of the dataset",
        "--validation-prompts",
        only=DENOISING,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.dataset:
            raise UsageError("no dataset given", "--dataset DIR is a folder of pictures")
        check_colour("--alpha-background", self.alpha_background)
        for name in ("bucket_step", "bucket_min", "bucket_max", "bucket_upscale"):
            if not self.buckets and getattr(self, name) != getattr(type(self), name):
                raise UsageError(f"{flag_of(name)} says something of --buckets", "add --buckets")
        if self.epochs is not None and self.max_train_steps is not None:
            raise UsageError("--epochs and --steps both say how long to train", "give one of them")
        if self.resume is not None and self.handoff is not None:
            raise UsageError("--resume and --handoff both say where to go on from", "give one of them")
        if self.handoff is not None and self.method == "scratch":
            raise UsageError(
                "--handoff continues one stage, and --method scratch trains several",
                "give the --method of the run that wrote it: vae, clip or unet",
            )
        if self.save_handoff is not None and self.method == "scratch":
            raise UsageError(
                "--save-handoff carries one stage, and --method scratch trains several",
                "give the --method of the stage that is to be carried: vae, clip or unet",
            )
        if self.resume not in (None, "latest") and self.method == "scratch":
            raise UsageError(
                "--resume CHECKPOINT continues one stage, and --method scratch trains several",
                "give --resume latest, or the --method of the checkpoint: vae, clip or unet",
            )
        if self.compile and self.buckets:
            raise UsageError(
                "--compile with --buckets would compile every size anew", "leave one of them out"
            )
        if self.compile and self.method == "clip":
            raise UsageError("--compile: the clip stage has nothing to compile", "leave it out")
