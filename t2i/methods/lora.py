"""LoRA: small factors beside the base's weights learn, the base stays (Hu et al. 2021, arXiv:2106.09685).

With `--dora` length and direction of each row learn apart (Liu et al. 2024, arXiv:2402.09353).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from t2i.config import TrainConfig
from t2i.devices import EXACT_FAMILIES
from t2i.errors import UsageError
from t2i.methods.denoising import DenoisingMethod
from t2i.methods.draws import Draws

UNET_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
# A small UNet has little attention: there the convolutions and feed-forward layers learn as well.
SMALL_TARGETS = (*UNET_TARGETS, "ff.net.0.proj", "ff.net.2", "conv1", "conv2")
TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")
ADAPTER = "default"


class TrainLoRA(DenoisingMethod):
    """Adapters in the UNet's attention, and on request in the text encoders'."""

    name: ClassVar[str] = "lora"
    default_learning_rate: ClassVar[float] = 1e-4
    pocket_learning_rate: ClassVar[float] = 1e-3
    pocket_steps: ClassVar[int | None] = 400  # after twice as many, other things begin to suffer
    results: ClassVar[tuple[str, ...]] = ("lora.safetensors",)

    def adapt(self) -> None:
        config = self.config
        own = SMALL_TARGETS if self.family.name in EXACT_FAMILIES else UNET_TARGETS
        add_adapter(self.unet, config.target_modules or own, config)
        if config.train_text_encoder:
            for encoder in self.text_encoders.values():
                add_adapter(encoder, TEXT_TARGETS, config)
        for module in self.learning().values():
            module.train()

    def notices(self) -> list[str]:
        told = super().notices()
        if self.config.dora and self.config.lora_format == "kohya":
            told.append(
                "plain Diffusers reads only the LoRA of a DoRA in kohya's format, all of the default one"
            )
        return told

    def learning(self) -> dict[str, nn.Module]:
        return {"unet": self.unet, **(self.text_encoders if self.config.train_text_encoder else {})}

    def before_forward(self, draws: Draws) -> None:
        """Dropout draws from torch's own stream: seed and step decide it, so that a resumed run is exact."""
        if self.config.lora_dropout > 0:
            torch.manual_seed(draws.seed())


def add_adapter(network: Any, targets: Sequence[str], config: TrainConfig) -> None:
    """Give every layer whose name ends in one of `targets` an adapter; B is zero: nothing changes yet.

    Raises:
        UsageError: No layer has such a name.
    """
    from peft import LoraConfig

    layers = [name for name, module in network.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            known = sorted({name.rpartition(".")[2] for name in layers if not name[-1].isdigit()})
            raise UsageError(
                f"--target-modules {target}: no layer's name ends so", f"layers: {', '.join(known)}"
            )
    alpha = config.lora_alpha
    network.add_adapter(LoraConfig(
        r=config.rank,
        lora_alpha=config.rank if alpha is None else alpha,
        lora_dropout=config.lora_dropout,
        target_modules=list(targets),
        use_dora=config.dora,
    ), adapter_name=ADAPTER)  # fmt: skip
