"""Everything that decides how a model is trained."""

from __future__ import annotations

from dataclasses import dataclass

from t2i.config.fields import Config, flag_of, option
from t2i.errors import UsageError

METHODS = ("scratch", "vae", "clip", "unet")
TIMESTEP_SAMPLINGS = ("uniform", "logit_normal")
CAPTION_SOURCES = ("auto", "metadata", "sidecar", "names", "none")


@dataclass(frozen=True)
class TrainConfig(Config):
    """One `t2i train` run. `None` means not given: the method's own default is used."""

    dataset: str = option("", "folder of pictures, with metadata.jsonl/.csv, .txt files or names as captions")
    output: str = option("runs/train", "run folder: logs, checkpoints, samples and model/", "-o")
    method: str = option("scratch", "what to train; scratch = vae, clip, unet in order", choices=METHODS)
    model: str | None = option(
        None, "model folder whose parts are the start; default: OUTPUT/parts where it exists", "-m"
    )
    captions: str = option("auto", "where captions come from", choices=CAPTION_SOURCES)
    resolution: int = option(
        64, "side of the square training pictures", low=16, high=1024, multiple_of=8, unit="pixels"
    )
    overwrite: bool = option(False, "replace what is there; a run that is not resumed is trained anew")
    seed: int = option(
        0, "decides weights, data order, noise and caption dropout", "-s", low=0, high=2**31 - 1
    )
    device: str = option("auto", "auto, cuda, mps, xpu or cpu")
    mixed_precision: str = option("auto", "format of the arithmetic", choices=("auto", "no", "bf16"))
    num_processes: int = option(
        1, "processes that share every batch on a CPU; often faster than as many threads", low=1, high=128
    )
    compile: bool = option(
        False,
        "torch.compile UNet and VAE: minutes at the start, faster steps; a CPU needs a C++ compiler",
    )

    max_train_steps: int | None = option(
        None, "optimizer steps of each stage; default: the method's", "--steps", low=1, high=10_000_000
    )
    max_train_time: float | None = option(
        None, "stop each stage with a checkpoint after this long", above=0, unit="minutes"
    )
    batch_size: int = option(64, "pictures per step", "--train-batch-size", low=1, high=4096)
    learning_rate: float | None = option(
        None, "peak learning rate; default: the method's", "--lr", above=0, high=1
    )
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
    save_dtype: str = option("fp32", "number format of OUTPUT/model", choices=("fp32", "fp16", "bf16"))
    sample_prompts: tuple[str, ...] = option(
        (), "prompts of the sample sheets; default: captions of the dataset", "--validation-prompts"
    )

    vae_channels: tuple[int, ...] = option(
        (32, 64, 96), "VAE widths, one per level; each level but one halves"
    )
    latent_channels: int = option(4, "channels of the latents", low=1, high=64)
    freeze_encoder: bool = option(
        False,
        "the vae stage learns the decoder only, so that latents, and a UNet trained on them, stay valid",
    )
    grow_vae: bool = option(
        False,
        "build the VAE of --vae-channels and --latent-channels and take over every layer of --model's VAE "
        "that has the same place, counted from the pixels, and shape",
    )
    vae_crop: int | None = option(
        None,
        "the vae stage learns from random square cuttings of this side; default: whole pictures",
        low=8,
        high=1024,
        unit="pixels",
    )
    kl_weight: float = option(1e-3, "weight of the KL term (mean over latent values)", low=0, high=1)
    edge_weight: float = option(0.5, "weight of the L1 difference of neighbouring pixels", low=0, high=100)

    text_width: int = option(192, "text encoder width", low=8, high=2048)
    text_layers: int = option(3, "text encoder layers", low=1, high=48)
    text_heads: int = option(4, "attention heads of text and image encoder", low=1, high=64)
    max_tokens: int = option(32, "tokens per prompt chunk, with begin and end marks", low=4, high=512)
    vocabulary_size: int = option(4096, "largest token vocabulary", low=300, high=65536)

    unet_channels: tuple[int, ...] = option((64, 128, 192), "UNet widths, one per level")
    unet_layers: int = option(1, "residual blocks per UNet level", low=1, high=8)
    unet_heads: int = option(4, "attention heads of the UNet", low=1, high=64)
    prediction_type: str = option(
        "v_prediction", "what the UNet predicts", choices=("epsilon", "v_prediction", "sample")
    )
    zero_terminal_snr: bool = option(True, "train the last timestep on pure noise (arXiv:2305.08891)")
    snr_gamma: float = option(
        5.0, "min-SNR loss weighting (arXiv:2303.09556); 0 = off", "--min-snr-gamma", low=0, high=100
    )
    timestep_sampling: str = option(
        "uniform",
        "how timesteps are drawn; logit_normal: ln sigma from a normal distribution (arXiv:2403.03206)",
        choices=TIMESTEP_SAMPLINGS,
    )
    logit_mean: float = option(0.0, "mean of ln sigma for logit_normal; higher = noisier", low=-10, high=10)
    logit_std: float = option(1.0, "standard deviation of ln sigma for logit_normal", above=0, high=10)
    caption_dropout: float = option(
        0.1, "share of captions replaced by nothing, for classifier-free guidance", low=0, high=1
    )
    train_text_encoder: bool = option(False, "let the UNet stage tune the text encoder as well")
    guidance_scale: float = option(
        4.0, "guidance of sample sheets, and the trained model's default", low=1, high=100
    )
    sampling_steps: int = option(
        25, "denoising steps of sample sheets, and the model's default", low=1, high=1000
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.dataset:
            raise UsageError("no dataset given", "--dataset DIR is a folder of pictures")
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
        if self.grow_vae and (self.model is None or self.freeze_encoder):
            raise UsageError(
                "--grow-vae takes layers over from a VAE and trains the whole",
                "give --model a folder with a vae, and leave --freeze-encoder out",
            )
        if self.compile and self.method == "clip":
            raise UsageError("--compile: the clip stage has nothing to compile", "leave it out")
        self._check_shapes()

    def _check_shapes(self) -> None:
        """Refuse widths that no network can be built of, before an earlier stage is trained for nothing.

        GroupNorm needs no check: its groups are chosen to divide the widths.
        """
        for name in ("vae_channels", "unet_channels"):
            widths = getattr(self, name)
            if not widths or min(widths) < 1:
                raise UsageError(f"{flag_of(name)} {_listed(widths)}: a width of at least 1 is needed")
        shrink = 2 ** (len(self.vae_channels) - 1)
        if self.resolution % shrink:
            raise UsageError(
                f"--resolution {self.resolution}: {len(self.vae_channels)} --vae-channels shrink pictures by "
                f"{shrink}, so it must be a multiple of {shrink}",
                "change either",
            )
        if self.vae_crop is not None and (self.vae_crop % shrink or self.vae_crop > self.resolution):
            raise UsageError(
                f"--vae-crop {self.vae_crop}: a multiple of {shrink} and at most --resolution "
                f"{self.resolution} is needed"
            )
        if self.text_width % self.text_heads:
            raise UsageError(
                f"--text-width {self.text_width}: must be a multiple of --text-heads {self.text_heads}"
            )
        for width in self.unet_channels[1:] or self.unet_channels:  # the outermost level has no attention
            if width % self.unet_heads:
                raise UsageError(
                    f"--unet-channels {width}: must be a multiple of --unet-heads {self.unet_heads}, "
                    "but for the first of several"
                )


def _listed(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, values)) or "without a value"
