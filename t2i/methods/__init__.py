"""Training methods: which parameters learn, the loss, what is saved. One row in `METHODS` each."""

from t2i.methods.base import Method, TrainingData, update_digest
from t2i.methods.classifier import TrainClassifier
from t2i.methods.clip import TrainCLIP
from t2i.methods.controlnet import TrainControlNet
from t2i.methods.full import TrainDreamBooth, TrainFull
from t2i.methods.inversion import TrainTextualInversion
from t2i.methods.lora import TrainLoRA
from t2i.methods.unet import TrainUNet
from t2i.methods.vae import TrainVAE

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        TrainLoRA, TrainFull, TrainDreamBooth, TrainTextualInversion, TrainControlNet, TrainClassifier,
        TrainVAE, TrainCLIP, TrainUNet,
    )
}  # fmt: skip
SCRATCH = ("vae", "clip", "unet")

__all__ = ["METHODS", "SCRATCH", "Method", "TrainingData", "update_digest"]
