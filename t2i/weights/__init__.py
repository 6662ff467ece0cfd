"""Finding, checking, loading, saving and hashing models. safetensors only, no code from models, ever.

`resolve_model` says what a name means, `load_model` brings it into memory, `save_folder` writes one,
`hash_files` fingerprints what was read. `find_adapters` finds LoRAs, textual inversions and ControlNets,
`use_adapters` puts them into a loaded model, `save_lora` writes one. Nothing heavy is imported before
something is loaded.
"""

from t2i.hashes import hash_files, user_cache_folder
from t2i.weights.adapters import Adapters, find_adapters, find_all, use_adapters
from t2i.weights.controlnet_files import check_fits, find_control
from t2i.weights.embedding_files import EmbeddingFile, inspect_embedding
from t2i.weights.layout import Layout
from t2i.weights.loading import LoadedModel, assemble, load_model, load_vocabulary
from t2i.weights.lora_files import LoraFile, inspect_lora
from t2i.weights.lora_saving import save_lora
from t2i.weights.parts import find_parts, load_parts, save_parts
from t2i.weights.saving import save_folder, save_weights, sorted_metadata
from t2i.weights.sources import ModelSource, fetch_model, resolve_model

__all__ = [
    "Adapters", "EmbeddingFile", "Layout", "LoadedModel", "LoraFile", "ModelSource", "assemble", "check_fits",
    "fetch_model", "find_adapters", "find_all", "find_control", "find_parts", "hash_files",
    "inspect_embedding", "inspect_lora", "load_model", "load_parts", "load_vocabulary", "resolve_model",
    "save_folder", "save_lora", "save_parts", "save_weights", "sorted_metadata", "use_adapters",
    "user_cache_folder",
]  # fmt: skip
