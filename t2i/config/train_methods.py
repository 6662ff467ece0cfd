"""What the single training methods are told, and what of it goes together."""

from __future__ import annotations

from dataclasses import dataclass, fields

from t2i.config.controls import CONTROL_KINDS
from t2i.config.fields import flag_of, option
from t2i.config.train import DENOISING, ON_A_BASE, OWN_PARTS, RunOptions
from t2i.errors import UsageError

TIMESTEP_SAMPLINGS = ("uniform", "logit_normal")
LATENT_WEIGHTINGS = ("uniform", "decoder")
VAE, CLIP, UNET = ("scratch", "vae"), ("scratch", "clip"), ("scratch", "unet")
LORA, PRIOR, INVERSION = ("lora",), ("lora", "full", "dreambooth"), ("textual-inversion",)
CONTROL, CLASSIFIER = ("controlnet",), ("classifier",)
FLOW = "flow_prediction"
SNR_GAMMA = 5.0
LEAST_JUDGED = 16  # px, of the discriminator of patches
FROM_SCRATCH = {
    "resolution": 64, "batch_size": 64, "guidance_scale": 4.0, "sampling_steps": 25, "snr_gamma": SNR_GAMMA,
    "zero_terminal_snr": True,
}  # fmt: skip


@dataclass(frozen=True)
class TrainConfig(RunOptions):
    """One `t2i train` run. An option with `only` is refused with other methods, never ignored.

    Where parts are trained from scratch, the values of `FROM_SCRATCH` stand for None at once; the other
    methods ask their base model for them, in `t2i.training.start.settled`.
    """

    vae_channels: tuple[int, ...] = option(
        (32, 64, 96), "VAE widths, one per level; each level but one halves", only=VAE
    )
    latent_channels: int = option(4, "channels of the latents", low=1, high=64, only=VAE)
    freeze_encoder: bool = option(
        False,
        "the vae stage learns the decoder only, so that latents, and a UNet trained on them, stay valid",
        only=VAE,
    )
    grow_vae: bool = option(
        False,
        "build the VAE of --vae-channels and --latent-channels and take over every layer of --model's VAE "
        "that has the same place, counted from the pixels, and shape",
        only=VAE,
    )
    vae_crop: int | None = option(
        None,
        "the vae stage learns from random square cuttings of this side; default: whole pictures",
        low=8,
        high=1024,
        unit="pixels",
        only=VAE,
    )
    kl_weight: float = option(
        1e-3, "weight of the KL term (mean over latent values)", low=0, high=1, only=VAE
    )
    edge_weight: float = option(
        0.5, "weight of the L1 difference of neighbouring pixels", low=0, high=100, only=VAE
    )
    perceptual_weight: float = option(
        0.0, "weight of the distance of CLIP features (arXiv:1801.03924); needs --perceptual-model",
        low=0, high=100, only=VAE,
    )  # fmt: skip
    perceptual_model: str | None = option(
        None, "folder of the CLIP model whose features are compared", only=VAE
    )
    adversarial_weight: float = option(
        0.0, "weight of a discriminator of patches that learns along (arXiv:2012.09841); 0 = none",
        low=0, high=100, only=VAE,
    )  # fmt: skip

    text_width: int = option(192, "text encoder width", low=8, high=2048, only=CLIP)
    text_layers: int = option(3, "text encoder layers", low=1, high=48, only=CLIP)
    text_heads: int = option(4, "attention heads of text and image encoder", low=1, high=64, only=CLIP)
    max_tokens: int = option(
        32, "tokens per prompt chunk, with begin and end marks", low=4, high=512, only=CLIP
    )
    vocabulary_size: int = option(4096, "largest token vocabulary", low=300, high=65536, only=CLIP)

    unet_channels: tuple[int, ...] = option((64, 128, 192), "UNet widths, one per level", only=UNET)
    unet_layers: int = option(1, "residual blocks per UNet level", low=1, high=8, only=UNET)
    unet_heads: int = option(4, "attention heads of the UNet", low=1, high=64, only=UNET)
    prediction_type: str = option(
        "v_prediction",
        "what the UNet predicts; flow_prediction: noise - data, rectified flow (arXiv:2209.03003)",
        choices=("epsilon", "v_prediction", "sample", FLOW),
        only=UNET,
    )
    zero_terminal_snr: bool = option(
        None,
        "train the last timestep on pure noise (arXiv:2305.08891); default: yes, for epsilon no",
        only=UNET,
    )
    snr_gamma: float = option(
        None,
        "min-SNR loss weighting (arXiv:2303.09556); 0 = off; default: 5, for flow_prediction 0",
        "--min-snr-gamma",
        low=0,
        high=100,
        only=DENOISING,
    )
    timestep_sampling: str = option(
        "uniform",
        "how timesteps are drawn; logit_normal: ln sigma, for flow_prediction ln(s / (1-s)), from a normal "
        "distribution (arXiv:2403.03206)",
        choices=TIMESTEP_SAMPLINGS,
        only=DENOISING,
    )
    logit_mean: float = option(
        0.0, "mean of ln sigma for logit_normal; higher = noisier", low=-10, high=10, only=DENOISING
    )
    logit_std: float = option(
        1.0, "standard deviation of ln sigma for logit_normal", above=0, high=10, only=DENOISING
    )
    latent_weighting: str = option(
        "uniform",
        "how much each latent channel counts in the loss: alike, or by what the decoder makes of it",
        choices=LATENT_WEIGHTINGS,
        only=UNET,
    )
    caption_dropout: float = option(
        0.1,
        "share of captions replaced by nothing, for classifier-free guidance",
        low=0,
        high=1,
        only=("lora", "full", "dreambooth", "controlnet", *UNET),
    )
    train_text_encoder: bool = option(
        False, "let the text encoder learn as well as the UNet", only=("lora", "full", "dreambooth", *UNET)
    )
    guidance_scale: float = option(
        None, "guidance of sample sheets, and a new model's default; default: the base model's, else 4",
        low=1, high=100, only=DENOISING,
    )  # fmt: skip
    sampling_steps: int = option(
        None, "denoising steps of sample sheets and of a new model; default: the base model's, else 25",
        low=1, high=1000, only=DENOISING,
    )  # fmt: skip

    instance_prompt: str | None = option(
        None, "one caption for every picture; default: the dataset's captions", only=ON_A_BASE
    )
    noise_offset: float = option(
        0.0, "extra noise that is the same over a whole channel: darker and brighter pictures (0.05 to 0.1)",
        low=0, high=1, only=ON_A_BASE,
    )  # fmt: skip
    input_perturbation: float = option(
        0.0, "extra noise in what the UNet sees and not in what it shall tell (arXiv:2301.11706; 0.1)",
        low=0, high=1, only=ON_A_BASE,
    )  # fmt: skip
    gradient_checkpointing: bool = option(
        False, "compute activations twice instead of keeping them: less memory, slower", only=ON_A_BASE
    )
    rank: int = option(16, "rank of the LoRA", "--network-dim", low=1, high=1024, only=LORA)
    lora_alpha: float | None = option(
        None, "the LoRA is scaled by this over its rank; default: the rank", "--network-alpha",
        above=0, high=4096, only=LORA,
    )  # fmt: skip
    lora_dropout: float = option(
        0.0, "share of the LoRA's inputs left out in training", low=0, high=0.9, only=LORA
    )
    target_modules: tuple[str, ...] = option(
        (), "layers of the UNet that get a LoRA, by the end of their names; default: those of attention, on "
        "pocket also convolutions and feed-forward",
        only=LORA,
    )  # fmt: skip
    dora: bool = option(False, "learn length and direction apart (arXiv:2402.09353)", only=LORA)
    lora_format: str = option(
        "peft", "names in the LoRA file: Diffusers' or kohya's", choices=("peft", "kohya"), only=LORA
    )
    class_prompt: str | None = option(
        None, "prior preservation: also learn from the base model's own pictures of this (arXiv:2208.12242)",
        only=PRIOR,
    )  # fmt: skip
    num_class_images: int = option(
        100, "pictures drawn for --class-prompt, in OUTPUT/class_images", low=1, high=100_000, only=PRIOR
    )
    prior_weight: float = option(
        1.0, "weight of the pictures of --class-prompt in the loss", "--prior-loss-weight",
        low=0, high=100, only=PRIOR,
    )  # fmt: skip
    placeholder_token: str | None = option(None, "new word that is learned", only=INVERSION)
    initializer_token: str | None = option(
        None, "known word that the new one starts as; default: the average of all words", only=INVERSION
    )
    num_vectors: int = option(1, "tokens that the new word is made of", low=1, high=32, only=INVERSION)
    control_kind: str | None = option(
        None, "what conditioning pictures are made of the dataset's", choices=CONTROL_KINDS, only=CONTROL
    )
    conditioning_images: str | None = option(
        None, "folder with a conditioning picture of the same name for each picture", only=CONTROL
    )
    labels: str = option(
        "folders", "classes: the folders of the dataset, or its captions", choices=("folders", "captions"),
        only=CLASSIFIER,
    )  # fmt: skip
    classifier_channels: tuple[int, ...] = option(
        (32, 64, 128), "classifier widths, one per level; each but the last halves", only=CLASSIFIER
    )

    def __post_init__(self) -> None:
        if self.method in OWN_PARTS:
            own: dict[str, object] = {"snr_gamma": 0.0} if self.prediction_type == FLOW else {}
            if self.prediction_type == "epsilon" and self.method in UNET:
                own["zero_terminal_snr"] = False
            for name, value in (FROM_SCRATCH | own).items():
                if getattr(self, name) is None:
                    object.__setattr__(self, name, value)  # a frozen dataclass has no other way
        super().__post_init__()
        self._check_uses()
        if self.grow_vae and (self.model is None or self.freeze_encoder):
            raise UsageError(
                "--grow-vae takes layers over from a VAE and trains the whole",
                "give --model a folder with a vae, and leave --freeze-encoder out",
            )
        if (self.perceptual_weight > 0) != (self.perceptual_model is not None):
            raise UsageError(
                "--perceptual-weight and --perceptual-model go together", "give both, or leave both out"
            )
        seen = self.resolution if self.vae_crop is None else self.vae_crop
        if self.adversarial_weight > 0 and self.method in OWN_PARTS and seen < LEAST_JUDGED:
            raise UsageError(
                f"--adversarial-weight: the discriminator needs pictures of at least {LEAST_JUDGED} px",
                "use a larger --resolution or --vae-crop",
            )
        if self.prediction_type == FLOW and not self.zero_terminal_snr:
            raise UsageError(
                "--no-zero-terminal-snr is for a schedule of betas; rectified flow always ends in pure noise",
                "leave it out, or choose another --prediction-type",
            )
        if self.prediction_type == "epsilon" and self.zero_terminal_snr:
            raise UsageError(
                "--zero-terminal-snr with --prediction-type epsilon: of pure noise the noise says nothing",
                "leave it out, or predict v or the sample",
            )
        if self.method in OWN_PARTS:
            self._check_shapes()
        else:
            self._check_base()

    def _check_uses(self) -> None:
        """Refuse options that the method, or another option, makes idle."""
        for name, looked_at, reason in (
            ("logit_mean", self.timestep_sampling == "logit_normal", "--timestep-sampling logit_normal"),
            ("logit_std", self.timestep_sampling == "logit_normal", "--timestep-sampling logit_normal"),
            ("lr_power", self.lr_scheduler == "polynomial", "--lr-scheduler polynomial"),
            ("lr_decay", self.lr_scheduler == "cosine-tail", "--lr-scheduler cosine-tail"),
        ):
            if not looked_at and getattr(self, name) != _default(name):
                raise UsageError(f"{flag_of(name)} says something of {reason}", "add it, or leave this out")
        for item in fields(self):
            only = item.metadata["option"].only
            unset = (None, item.default, FROM_SCRATCH.get(item.name))
            if only and self.method not in only and getattr(self, item.name) not in unset:
                raise UsageError(
                    f"{flag_of(item.name)} is not for --method {self.method} but for {', '.join(only)}",
                    "leave it out, or choose another --method",
                )

    def _check_base(self) -> None:
        """Refuse what a method on a base model needs and has not, or cannot use."""
        if self.method == "dreambooth" and self.class_prompt is None:
            raise UsageError(
                "--method dreambooth needs --class-prompt",
                'such as --class-prompt "a dog" for pictures of one dog',
            )
        if self.class_prompt is None:
            for name in ("num_class_images", "prior_weight"):
                if getattr(self, name) != _default(name):
                    raise UsageError(
                        f"{flag_of(name)} is for --class-prompt, and there is none", "give it too"
                    )
        if self.method == "textual-inversion" and self.placeholder_token is None:
            raise UsageError("--method textual-inversion needs --placeholder-token", 'such as "<zorb>"')
        token = self.placeholder_token
        if token is not None and (not token.strip() or token != token.strip() or " " in token):
            raise UsageError(f"--placeholder-token {token!r}: one word is needed", 'such as "<zorb>"')
        for name in ("instance_prompt", "class_prompt"):
            if getattr(self, name) is not None and not getattr(self, name).strip():
                raise UsageError(f"{flag_of(name)} is empty", "leave it out, or say what is in the pictures")
        if self.method == "classifier" and min(self.classifier_channels, default=0) < 4:
            raise UsageError("--classifier-channels: widths of at least 4 are needed")

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


def _default(name: str) -> object:
    return TrainConfig.__dataclass_fields__[name].default
