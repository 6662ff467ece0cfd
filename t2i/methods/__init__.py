"""Training methods: which parameters learn, the loss, what is saved. One row in `METHODS` each."""

from t2i.methods.base import Method, TrainingData, update_digest
from t2i.methods.clip import TrainCLIP
from t2i.methods.unet import TrainUNet
from t2i.methods.vae import TrainVAE

METHODS: dict[str, type[Method]] = {"vae": TrainVAE, "clip": TrainCLIP, "unet": TrainUNet}
SCRATCH = ("vae", "clip", "unet")

__all__ = ["METHODS", "SCRATCH", "Method", "TrainingData", "update_digest"]
