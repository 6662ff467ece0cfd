"""Textual inversions in a loaded model: more tokens for its tokenizers, more rows for its text encoders.

Neither a tokenizer nor a weight is changed: both are wrapped, and unwrapped when nobody asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from t2i.errors import ModelError
from t2i.families.added_tokens import AddedTokens
from t2i.weights.adapters import EmbeddingUse
from t2i.weights.lora_reading import read_tensors

if TYPE_CHECKING:
    from t2i.weights.loading import LoadedModel


class ExtendedEmbedding(nn.Module):
    """A table of embeddings with rows behind its last one; ids beyond the table mean those.

    Args:
        base: (V, D).
        rows: (N, D), for ids V to V + N - 1.
    """

    def __init__(self, base: nn.Embedding, rows: Tensor) -> None:
        super().__init__()
        self.base = base
        self.register_buffer("rows", rows.to(base.weight), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """(…) ids → (…, D)."""
        own = self.base.num_embeddings
        rows: Any = self.rows
        return torch.where(
            (ids < own)[..., None], self.base(ids.clamp(max=own - 1)), rows[(ids - own).clamp(min=0)]
        )


def use_embeddings(model: LoadedModel, uses: Sequence[EmbeddingUse], tell: Callable[[str], None]) -> None:
    """Make a model know exactly these textual inversions; see `t2i.weights.adapters.use_adapters`.

    Raises:
        ModelError: The vectors do not fit the text encoders.
    """
    state, family = model.adapted, model.family
    wanted = tuple(use.sha256 for use in uses)
    if wanted == state.tokens:
        return
    own = state.own or family.parts
    read = [_read(model, use, own.text_encoders) for use in uses]  # refused before anything is changed
    remove_embeddings(model)
    if not uses:
        return
    tokenizers = []
    for number, (tokenizer, encoder) in enumerate(zip(own.tokenizers, own.text_encoders, strict=True)):
        base = encoder.get_input_embeddings()
        tokens, begin = {}, base.num_embeddings
        for use in uses:
            tokens[use.file.token] = range(begin, begin + use.file.vectors)
            begin += use.file.vectors
        rows = torch.cat([vectors[number] for vectors in read])
        encoder.set_input_embeddings(ExtendedEmbedding(base, rows))
        tokenizers.append(AddedTokens(tokenizer, tokens))
    words = (*own.known_words, *(use.file.token for use in uses)) if own.known_words else ()
    family.parts = replace(own, tokenizers=tuple(tokenizers), known_words=words)
    state.own, state.tokens = own, wanted
    for use in uses:
        count = f"{use.file.vectors} vector" + ("s" if use.file.vectors > 1 else "")
        tell(f"{use.shown}: token {use.file.token!r}, {count}")


def remove_embeddings(model: LoadedModel) -> None:
    """Take all textual inversions out again."""
    state = model.adapted
    if state.own is None:
        return
    for encoder in state.own.text_encoders:
        table = encoder.get_input_embeddings()
        if isinstance(table, ExtendedEmbedding):
            encoder.set_input_embeddings(table.base)
    model.family.parts = state.own
    state.own, state.tokens = None, ()


def _read(model: LoadedModel, use: EmbeddingUse, encoders: Sequence[Any]) -> list[Tensor]:
    """The vectors for each text encoder, (N, D) each."""
    file = use.file
    widths = tuple(encoder.config.hidden_size for encoder in encoders)
    if file.widths != widths:
        has, needs = (" and ".join(map(str, row)) for row in (file.widths, widths))
        raise ModelError(
            f"{file.path} has vectors of {has} numbers; the text encoders of {model.id} take {needs}",
            "a textual inversion works only with the kind of model that it was trained on",
        )
    tensors = read_tensors(file.path)
    return [tensors[key].reshape(-1, width) for key, width in zip(file.keys, widths, strict=True)]
