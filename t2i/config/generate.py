"""Everything that decides what a picture looks like."""

from __future__ import annotations

from dataclasses import dataclass

from t2i.config.controls import CONTROL_KINDS, LARGEST_CONTROL_SCALE
from t2i.config.fields import Config, option
from t2i.config.loras import LARGEST_SCALE, parse_lora, read_tags
from t2i.errors import UsageError

SEED_LIMIT = 2**63


@dataclass(frozen=True)
class GenerateConfig(Config):
    """One `t2i generate` run. `None` means not given: the model's own default is used."""

    prompts: tuple[str, ...] = option(
        (), "what to draw; several prompts make several pictures; - reads stdin"
    )
    negative_prompt: str = option("", "what to keep out of the picture", "-n")
    steps: int | None = option(
        None, "denoising steps; default: the model's", "--num-inference-steps", low=1, high=1000
    )
    guidance_scale: float | None = option(
        None,
        "classifier-free guidance, 1 = off; default: the model's",
        "-g", "--guidance", "--cfg-scale", "--cfg",
        low=1, high=100,
        reason="1 is off, and smaller values would silently be off as well",
    )  # fmt: skip
    scheduler: str | None = option(
        None, "sampling method, see `t2i schedulers`; default: the model's", "--sampler"
    )
    seed: int | None = option(
        None, "start noise of image 0; image k uses seed + k; default: drawn, printed and saved", "-s",
        low=0, high=SEED_LIMIT - 1,
    )  # fmt: skip
    width: int | None = option(
        None, "picture width; default: the model's", "-W", low=8, high=8192, multiple_of=8, unit="pixels"
    )
    height: int | None = option(
        None, "picture height; default: the model's", "-H", low=8, high=8192, multiple_of=8, unit="pixels"
    )
    num_images: int = option(1, "pictures per prompt", "-N", "--batch-count", low=1, high=100_000)
    batch_size: int | None = option(
        None, "pictures denoised together, also where memory runs out; default: what fits", low=1, high=1024
    )
    model: str = option("pocket", "alias, Hub id, Diffusers folder or .safetensors file", "-m")
    lora: tuple[str, ...] = option(
        (), "LoRA file, its scale behind a colon as in corgi.safetensors:0.8; may be repeated"
    )
    lora_scale: float = option(
        1.0, "multiplies the scale of every LoRA", low=-LARGEST_SCALE, high=LARGEST_SCALE
    )
    embedding: tuple[str, ...] = option(
        (), "textual inversion file, whose token then stands for it in prompts; may be repeated",
        "--textual-inversion",
    )  # fmt: skip
    controlnet: str | None = option(
        None, "folder of a ControlNet, as t2i train and Diffusers write it; default: none", "--control-net"
    )
    control_image: str | None = option(
        None, "picture that the ControlNet follows, scaled to the size of what is drawn; default: none",
        "--controlnet-image-path",
    )  # fmt: skip
    control_scale: float = option(
        1.0, "how strongly the ControlNet steers; 0 = not at all",
        "--control-strength", "--controlnet-strength", "--controlnet-conditioning-scale",
        low=0, high=LARGEST_CONTROL_SCALE,
    )  # fmt: skip
    control_kind: str | None = option(
        None, "what to make of the control picture first; default: it is used as it is", choices=CONTROL_KINDS
    )
    device: str = option("auto", "auto, cuda, cuda:1, mps, xpu or cpu")
    dtype: str = option("auto", "number format of the weights", choices=("auto", "fp32", "fp16", "bf16"))
    deterministic: bool = option(
        False,
        "one picture at a time, one thread, deterministic kernels: equal bytes whatever the batch size",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for text in (*self.prompts, self.negative_prompt):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise UsageError(f"the prompt {text[:80]!r} is not UTF-8 text") from error
        for text in self.prompts:
            read_tags(text)
        if read_tags(self.negative_prompt)[1]:
            raise UsageError("a LoRA in the negative prompt would change both", "put the tag into the prompt")
        for text in self.lora:
            parse_lora(text)
