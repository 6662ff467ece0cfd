"""Finding, checking, loading, saving and hashing models. safetensors only, no code from models, ever.

`resolve_model` says what a name means, `load_model` brings it into memory, `save_folder` writes one,
`hash_files` fingerprints what was read. Nothing heavy is imported before a model is loaded or saved.
"""

from t2i.hashes import hash_files, user_cache_folder
from t2i.weights.loading import LoadedModel, assemble, load_model, load_vocabulary
from t2i.weights.parts import find_parts, load_parts, save_parts
from t2i.weights.saving import save_folder, save_weights
from t2i.weights.sources import ModelSource, fetch_model, resolve_model

__all__ = [
    "LoadedModel", "ModelSource", "assemble", "fetch_model", "find_parts", "hash_files", "load_model",
    "load_parts", "load_vocabulary", "resolve_model", "save_folder", "save_parts", "save_weights",
    "user_cache_folder",
]  # fmt: skip
