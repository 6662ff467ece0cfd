"""A tokenizer with more tokens than its vocabulary: each stands for some rows of an encoder's table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from t2i.families.prompts import END_OF_WORD


class AddedTokens:
    """A CLIPTokenizer and tokens of its own, which it finds in any case of letters, as whole words.

    The tokenizer itself is left as it is; everything else is asked of it.

    Args:
        tokenizer: A CLIPTokenizer.
        tokens: Token → its ids, one for each of its vectors.
    """

    def __init__(self, tokenizer: Any, tokens: Mapping[str, Sequence[int]]) -> None:
        self._tokenizer = tokenizer
        self._ids = {token.lower(): tuple(ids) for token, ids in tokens.items()}
        self._names: dict[int, str] = {}
        for token, ids in tokens.items():
            names = [token if k == 0 else f"{token}_{k}" for k in range(len(ids))]
            self._names |= dict(zip(ids, [*names[:-1], names[-1] + END_OF_WORD], strict=True))
        longest_first = sorted(tokens, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(_whole_word, longest_first)), re.IGNORECASE)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, text: str, add_special_tokens: bool = False, verbose: bool = False) -> SimpleNamespace:
        """The ids of a text as `input_ids`, without marks."""
        if add_special_tokens:
            raise ValueError("marks are added to whole chunks")
        ids: list[int] = []
        begin = 0
        for found in [*self._pattern.finditer(text), None]:
            between = text[begin : found.start() if found else len(text)]
            if between.strip():
                ids += self._tokenizer(between, add_special_tokens=False, verbose=verbose).input_ids
            if found is not None:
                ids += self._ids[found[0].lower()]
                begin = found.end()
        return SimpleNamespace(input_ids=ids)

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """The tokens of some ids; the last vector of an added one ends a word."""
        return [self._names.get(value) or self._tokenizer.convert_ids_to_tokens([value])[0] for value in ids]


def _whole_word(token: str) -> str:
    """A pattern for a token that is not part of a longer word."""
    before = r"(?<!\w)" if re.match(r"\w", token) else ""
    behind = r"(?!\w)" if re.search(r"\w$", token) else ""
    return before + re.escape(token) + behind
