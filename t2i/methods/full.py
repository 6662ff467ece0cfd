"""All of the base's UNet learns, and on request its text encoders; the result is a model of its own."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from t2i.methods.clip import words_of
from t2i.methods.denoising import DenoisingMethod


class TrainFull(DenoisingMethod):
    """Fine-tuning of every weight of the UNet."""

    name: ClassVar[str] = "full"
    default_learning_rate: ClassVar[float] = 1e-5
    pocket_learning_rate: ClassVar[float] = 2e-4
    results: ClassVar[tuple[str, ...]] = ("model",)

    def adapt(self) -> None:
        for module in self.learning().values():
            module.train().requires_grad_(True)

    def learning(self) -> dict[str, nn.Module]:
        return {"unet": self.unet, **(self.text_encoders if self.config.train_text_encoder else {})}

    def parts(self) -> dict[str, Any]:
        """Everything that a model folder holds."""
        own = self.family.parts
        return {
            "unet": self.unet,
            "vae": self.vae,
            "text_encoders": own.text_encoders,
            "tokenizers": own.tokenizers,
            "scheduler_config": dict(self.schedule),
            "words": sorted({*own.known_words, *words_of(self.captions)}) if own.known_words else (),
            "zeros_for_empty_prompt": own.zeros_for_empty_prompt,
        }


class TrainDreamBooth(TrainFull):
    """A few pictures of one thing, beside the base's own pictures of its class, which keep that as it was.

    Source: Ruiz et al. 2022, arXiv:2208.12242, section 3.2 (class-specific prior preservation loss). The loss
    is `DenoisingMethod`'s, which `--class-prompt` gives LoRA and full fine-tuning as well.
    """

    name: ClassVar[str] = "dreambooth"
    default_steps: ClassVar[int] = 800
    default_learning_rate: ClassVar[float] = 5e-6
