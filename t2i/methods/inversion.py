"""Textual inversion: a new word learns what it means, no network changes.

Source: Gal et al. 2022, arXiv:2208.01618. With several vectors it is a word of several tokens.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i.errors import UsageError
from t2i.families.added_tokens import AddedTokens
from t2i.methods.base import TrainingData
from t2i.methods.denoising import DenoisingMethod


class NewWords(nn.Module):
    """A table of token embeddings with further rows, of which only those learn."""

    def __init__(self, known: nn.Embedding, new: Tensor) -> None:
        """
        Args:
            known: The encoder's own table, V rows; it stays as it is.
            new: Rows V, V + 1, … at the start, (R, D).
        """
        super().__init__()
        self.known = known.requires_grad_(False)
        self.new = nn.Parameter(new.detach().clone())

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings of token ids, (…) → (…, D)."""
        return F.embedding(ids, torch.cat([self.known.weight, self.new]))


class TrainTextualInversion(DenoisingMethod):
    """The rows of `--placeholder-token` in each text encoder's table of embeddings."""

    name: ClassVar[str] = "textual-inversion"
    default_steps: ClassVar[int] = 2000
    default_learning_rate: ClassVar[float] = 5e-3
    pocket_learning_rate: ClassVar[float] = 5e-3
    results: ClassVar[tuple[str, ...]] = ("embedding",)

    def adapt(self) -> None:
        config, parts = self.config, self.family.parts
        assert config.placeholder_token is not None
        self.tables: dict[str, NewWords] = {}
        tokenizers = []
        for (name, encoder), tokenizer in zip(self.text_encoders.items(), parts.tokenizers, strict=True):
            known = encoder.get_input_embeddings()
            self.tables[name] = NewWords(known, self._first(tokenizer, known.weight))
            encoder.set_input_embeddings(self.tables[name].to(self.device))
            ids = range(known.num_embeddings, known.num_embeddings + config.num_vectors)
            tokenizers.append(AddedTokens(tokenizer, {config.placeholder_token: ids}))
        self.family.parts = replace(parts, tokenizers=tuple(tokenizers))

    def learning(self) -> dict[str, nn.Module]:
        return dict(self.tables)

    def captions_of(self, data: TrainingData) -> list[str]:
        """Captions with the new word; a picture whose own has it not is "a picture of" it."""
        token = str(self.config.placeholder_token)
        plain = f"a picture of {token}"
        return [
            caption if token.lower() in caption.lower() else plain for caption in super().captions_of(data)
        ]

    def notices(self) -> list[str]:
        token = str(self.config.placeholder_token)
        without = sum(token.lower() not in caption.lower() for caption in super().captions_of(self.data))
        told = f'{without} captions without {token} are read as "a picture of {token}"'
        return [*super().notices(), *([told] if without else [])]

    def parts(self) -> dict[str, Any]:
        """Encoder → the new rows, (R, D)."""
        return {name: table.new for name, table in self.tables.items()}

    def _caption_dropout(self) -> float:
        return 0.0  # a picture without its word teaches the word nothing

    def _first(self, tokenizer: Any, known: Tensor) -> Tensor:
        """What the new rows start as, (R, D): the rows of --initializer-token in turn, or the mean of all.

        Raises:
            UsageError: The placeholder is a token of the model's already.
        """
        config = self.config
        placeholder, count = str(config.placeholder_token), config.num_vectors
        vocabulary = tokenizer.get_vocab()
        if placeholder.lower() in vocabulary or f"{placeholder.lower()}</w>" in vocabulary:
            raise UsageError(
                f"--placeholder-token {placeholder}: the model knows this word already",
                f"choose one that it does not know, such as <{placeholder}>",
            )
        if config.initializer_token is None:
            return known.mean(0, keepdim=True).repeat(count, 1)
        ids = tokenizer(config.initializer_token, add_special_tokens=False).input_ids
        if not ids:
            raise UsageError("--initializer-token is empty", "name a word that the model knows")
        return known[[ids[k % len(ids)] for k in range(count)]]
