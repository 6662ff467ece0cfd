"""The text encoder, trained against a picture encoder (Radford et al. 2021, arXiv:2103.00020, figure 3).

Also builds the tokenizer: a CLIP vocabulary made from the captions, in which every word of the training
captions that is common enough is one token.
"""

from __future__ import annotations

import copy
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, CLIPTokenizer

from t2i.config import TrainConfig
from t2i.dataset import to_pixels
from t2i.families.prompts import words_in
from t2i.methods.base import TrainingData
from t2i.methods.draws import Draws
from t2i.methods.sheet import save_sheet

BEGIN, END = "<|startoftext|>", "<|endoftext|>"


class TrainCLIP:
    """Stage 2 of training from scratch: text and picture towers, symmetric cross-entropy."""

    name: ClassVar[str] = "clip"
    default_steps: ClassVar[int] = 2000
    default_learning_rate: ClassVar[float] = 1e-3
    pocket_learning_rate: ClassVar[float] = 1e-3
    pocket_steps: ClassVar[int | None] = None
    shares_batches: ClassVar[bool] = False  # every caption is contrasted with the whole batch
    results: ClassVar[tuple[str, ...]] = ("parts/clip", "parts/text_encoder", "parts/tokenizer")
    builds_on: ClassVar[tuple[str, ...]] = ()
    goes_on_with: ClassVar[tuple[str, ...]] = ("tokenizer", "text_encoder")

    def __init__(
        self, config: TrainConfig, data: TrainingData, start: Mapping[str, Any], device: torch.device
    ) -> None:
        self.config, self.data, self.device = config, data, device
        self._seen = data.seen()[0].pixels
        self.tokenizer: CLIPTokenizer = start.get("tokenizer") or build_tokenizer(
            data.captions, config.vocabulary_size, config.max_tokens
        )
        self.clip = CLIPModel(clip_config(config, self.tokenizer)).to(device).train()
        if "text_encoder" in start:
            self.clip.text_model.load_state_dict(text_tower(start["text_encoder"]).state_dict())
        self.tokens = tokenize(self.tokenizer, data.captions)  # (N, L)
        kinds = {caption: number for number, caption in enumerate(dict.fromkeys(data.captions))}
        self.kinds = torch.tensor([kinds[caption] for caption in data.captions])

    def trainable(self) -> nn.ModuleDict:
        return nn.ModuleDict({"clip": self.clip})

    def frozen(self) -> Mapping[str, Any]:
        return {"tokenizer": self.tokenizer}

    def notices(self) -> list[str]:
        if not any(self.data.captions):
            return [
                "no captions to learn from: the text encoder is saved untrained, for a model without prompts"
            ]
        return cut_captions(self.tokenizer, self.data.captions, self.tokens)

    def similarity(self, rows: np.ndarray) -> Tensor:
        """Scaled cosine similarity of every picture (rows) with every caption (columns), (B, B)."""
        pixels = to_pixels(self._seen, self.data.views(rows)).to(self.device)
        tokens = self.tokens[torch.from_numpy(rows)].to(self.device)
        output = self.clip(input_ids=tokens, pixel_values=pixels)
        return output.logits_per_image.float()

    def loss(self, rows: np.ndarray, draws: Draws) -> tuple[Tensor, dict[str, float]]:
        logits = self.similarity(rows)
        kinds = self.kinds[torch.from_numpy(rows)].to(self.device)
        same = (kinds[:, None] == kinds[None, :]) & ~torch.eye(
            len(rows), dtype=torch.bool, device=self.device
        )
        logits = logits.masked_fill(same, -torch.inf)  # the same caption twice is not a wrong answer
        answers = torch.arange(len(rows), device=self.device)
        total = (F.cross_entropy(logits, answers) + F.cross_entropy(logits.T, answers)) / 2
        right = (logits.argmax(1) == answers).float().mean()
        return total, {"accuracy": right.item()}

    @torch.no_grad()
    def sample(self, path: Path, prompts: Sequence[str]) -> dict[str, float]:
        rows = np.linspace(0, len(self.data.pixels) - 1, min(256, len(self.data.pixels))).astype(np.int64)
        logits = self.similarity(rows)
        found = logits.argmax(0)[:16].cpu().numpy()  # the best picture for each of the first captions
        sheet = [to_pixels(self.data.pixels, rows[:16]), to_pixels(self.data.pixels, rows[found])]
        save_sheet(path, sheet)
        kinds = self.kinds[torch.from_numpy(rows)]
        right = kinds[logits.argmax(1).cpu()] == kinds
        return {"retrieval_of_256": float(right.float().mean())}

    def parts(self) -> dict[str, Any]:
        text_encoder = CLIPTextModel(self.clip.config.text_config)
        text_tower(text_encoder).load_state_dict(self.clip.text_model.state_dict())
        words = words_of(self.data.captions)
        return {"text_encoder": text_encoder, "tokenizer": self.tokenizer, "clip": self.clip, "words": words}


def text_tower(model: CLIPTextModel) -> nn.Module:
    """The transformer inside a text encoder; transformers 5.23 no longer nests it."""
    return getattr(model, "text_model", model)


def words_of(captions: Sequence[str]) -> list[str]:
    """Every word of the captions, alphabetically: what a model trained on them has seen."""
    return sorted({word for caption in captions for word in words_in(caption)})


def build_tokenizer(captions: Sequence[str], vocabulary_size: int, max_tokens: int) -> CLIPTokenizer:
    """A CLIP tokenizer whose merges come from these captions.

    Args:
        captions: Training captions.
        vocabulary_size: Most tokens, with 512 for bytes and 2 marks.
        max_tokens: `model_max_length`: tokens per chunk, with begin and end marks.
    """
    from tokenizers import Tokenizer, models, trainers

    blank = CLIPTokenizer()  # carries CLIP's own normaliser and splitting
    backend: Tokenizer = blank.backend_tokenizer
    counts = Counter(
        piece
        for caption in captions
        for piece, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(caption))
    )
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    alphabet = byte_alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size - 2 - len(alphabet),
        min_frequency=2,
        end_of_word_suffix="</w>",
        show_progress=False,
        initial_alphabet=alphabet,
    )
    learner.train_from_iterator(
        (word for word, count in sorted(counts.items()) for _ in range(count)), trainer
    )
    model = json.loads(learner.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    tokens += [token for first, second in merges if (token := first + second) not in set(tokens)]
    vocabulary = {token: number for number, token in enumerate([*dict.fromkeys(tokens), BEGIN, END])}
    return CLIPTokenizer(
        vocab=vocabulary, merges=merges, unk_token=END, bos_token=BEGIN, eos_token=END, pad_token=END,
        model_max_length=max_tokens,
    )  # fmt: skip


def byte_alphabet() -> list[str]:
    """The 256 printable letters that stand for bytes in byte-level BPE, in byte order."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def tokenize(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """Token ids, padded or cut to `model_max_length`, (N, L)."""
    unique = list(dict.fromkeys(captions))
    encoded = tokenizer(
        unique,
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids
    number = {caption: index for index, caption in enumerate(unique)}
    return encoded[torch.tensor([number[caption] for caption in captions])]


def cut_captions(tokenizer: CLIPTokenizer, captions: Sequence[str], tokens: Tensor) -> list[str]:
    """One line if some captions are longer than the tokenizer's window, which training cuts; else none.

    Args:
        tokenizer: With `model_max_length`.
        captions: N captions.
        tokens: What `tokenize` made of them, (N, L).
    """
    full = tokens[:, -2] != tokenizer.eos_token_id  # not padded: only these can be too long
    counts = Counter(captions[row] for row in full.nonzero()[:, 0].tolist())
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    backend.no_truncation()
    backend.no_padding()
    lengths = {
        caption: len(encoding.ids)
        for caption, encoding in zip(counts, backend.encode_batch([*counts]), strict=True)
    }
    window = tokenizer.model_max_length
    cut = sum(count for caption, count in counts.items() if lengths[caption] > window)
    if not cut:
        return []
    return [
        f"{cut} of {len(captions)} captions are longer than {window} tokens and were cut; the longest has "
        f"{max(lengths.values())}: train the text encoder with --max-tokens {max(lengths.values())}"
    ]


def clip_config(config: TrainConfig, tokenizer: CLIPTokenizer) -> CLIPConfig:
    """Two small towers that share width and depth; pictures are cut in 8 × 8 patches."""
    shared = {
        "hidden_size": config.text_width,
        "intermediate_size": 4 * config.text_width,
        "num_hidden_layers": config.text_layers,
        "num_attention_heads": config.text_heads,
        "projection_dim": config.text_width,
    }
    text = shared | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = shared | {"image_size": config.resolution, "patch_size": 8}
    return CLIPConfig(
        text_config=text, vision_config=vision, projection_dim=config.text_width,
        logit_scale_init_value=math.log(1 / 0.07),
    )  # fmt: skip
