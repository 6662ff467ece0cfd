"""Prompt → token ids → chunks, for the byte-pair tokenizers of the CLIP families; and explaining them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from t2i.conditioning import frame_chunk, split_into_chunks
from t2i.families.kindred import words_instead

END_OF_WORD = "</w>"
PUNCTUATION = ".,;:!?\"'()"
LETTERS = re.compile(r"[^\W_]+")
POSSESSIVE = re.compile(r"['’]s$")
LONGEST_SHOWN = 40


@dataclass(frozen=True)
class Explanation:
    """How a model reads a prompt.

    Attributes:
        chunks: The tokens of each chunk, as text, without marks and padding.
        ids: The token ids in the same order.
        chunk_length: Ids a chunk holds, its two marks included.
        unknown: As of `unknown_words`.
    """

    chunks: tuple[tuple[str, ...], ...]
    ids: tuple[tuple[int, ...], ...]
    chunk_length: int
    unknown: dict[str, list[str]]

    def __iter__(self) -> Iterator[str]:
        """The lines for a person."""
        return iter(self.lines())

    def lines(self) -> list[str]:
        """The explanation for a person, one fact a line."""
        count = sum(len(chunk) for chunk in self.chunks)
        lines = [f"{count} tokens in {len(self.chunks)} chunk{'s' * (len(self.chunks) != 1)}"]
        for number, (tokens, ids) in enumerate(zip(self.chunks, self.ids, strict=True), 1):
            shown = " ".join(f"{token}({value})" for token, value in zip(tokens, ids, strict=True))
            lines.append(
                f"chunk {number}: {len(tokens)} of {self.chunk_length - 2} places: {shown or '(empty)'}"
            )
        return lines + unknown_lines(self.unknown)


def words_in(text: str) -> list[str]:
    """The words of a text, in small letters, without the punctuation around them: "t-shirt" is one."""
    return [word for piece in text.lower().split() if (word := piece.strip(PUNCTUATION))]


def prompt_pieces(tokenizer: Any, prompt: str) -> list[list[int]]:
    """The token ids of a prompt, in pieces that fit the tokenizer's chunk, without marks."""
    ids = tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids
    tokens = tokenizer.convert_ids_to_tokens(ids)
    ends = [token.endswith(END_OF_WORD) for token in tokens]
    return split_into_chunks(ids, ends, tokenizer.model_max_length - 2)


def prompt_chunks(tokenizer: Any, prompt: str, chunks: int | None = None) -> list[list[int]]:
    """The chunks of a prompt as the encoder takes them: marked and padded.

    Args:
        tokenizer: A CLIPTokenizer; its own begin, end and padding ids are used.
        prompt: Any text.
        chunks: Add empty chunks up to this number. None adds none.

    Returns:
        Lists of `tokenizer.model_max_length` ids.

    Raises:
        ValueError: The prompt needs more than `chunks` chunks.
    """
    pieces = prompt_pieces(tokenizer, prompt)
    if chunks is not None:
        if len(pieces) > chunks:
            raise ValueError(f"the prompt needs {len(pieces)} chunks, not {chunks}")
        pieces += [[] for _ in range(chunks - len(pieces))]
    bos, eos, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    return [frame_chunk(piece, bos, eos, pad, tokenizer.model_max_length) for piece in pieces]


def explain_prompt(tokenizer: Any, prompt: str, known_words: Sequence[str] = ()) -> Explanation:
    """Tokens, chunks, and the words of `prompt` that are not among `known_words` (if there are any)."""
    pieces = prompt_pieces(tokenizer, prompt)
    texts = [tokenizer.convert_ids_to_tokens(piece) for piece in pieces]
    return Explanation(
        tuple(tuple(token.removesuffix(END_OF_WORD) for token in chunk) for chunk in texts),
        tuple(tuple(piece) for piece in pieces),
        tokenizer.model_max_length,
        unknown_words(prompt, known_words),
    )


def unknown_words(prompt: str, known_words: Sequence[str]) -> dict[str, list[str]]:
    """Words of a prompt that were never seen in training → what the model would understand instead.

    "dog,cat" and "dog's" are taken apart where they are not words of their own, as the tokenizers do it.
    Empty if the model keeps no list of known words.
    """
    known = _small(tuple(known_words))
    unknown: dict[str, list[str]] = {}
    for word in words_in(prompt) if known else ():
        parts = [word] if word in known else LETTERS.findall(POSSESSIVE.sub("", word))
        for part in parts:
            if part not in known:
                unknown[part[:LONGEST_SHOWN]] = list(words_instead(part, known))
    return unknown


@lru_cache(8)
def _small(words: tuple[str, ...]) -> frozenset[str]:
    """In small letters, and as `words_in` gives them."""
    return frozenset(form for word in words for form in (word.lower(), word.lower().strip(PUNCTUATION)))


def unknown_lines(unknown: Mapping[str, Sequence[str]]) -> list[str]:
    """A line for a person on each of `unknown_words`."""
    return [
        f"never seen in training: {word}; "
        + (f"instead: {', '.join(near)}" if near else "nothing near it is known")
        for word, near in unknown.items()
    ]
