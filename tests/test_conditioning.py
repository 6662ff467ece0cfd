"""Chunks of prompts, and batches of conditionings."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import make_tokenizer

from t2i.conditioning import Conditioning, frame_chunk, join, split_into_chunks
from t2i.families import kindred
from t2i.families.kindred import words_instead
from t2i.families.prompts import explain_prompt, prompt_chunks, prompt_pieces, unknown_words


@given(st.lists(st.booleans(), max_size=200), st.integers(1, 30))
def test_chunks_lose_nothing_and_cut_between_words(ends, places):
    ids = list(range(len(ends)))
    pieces = split_into_chunks(ids, ends, places)
    assert [value for piece in pieces for value in piece] == ids
    assert len(pieces) >= 1 and all(len(piece) <= places for piece in pieces)
    for piece in pieces[:-1]:
        assert piece and (ends[piece[-1]] or not any(ends[value] for value in piece))


def test_an_empty_prompt_is_one_empty_chunk():
    assert split_into_chunks([], [], 75) == [[]]
    assert frame_chunk([], 8, 9, 0, 5) == [8, 9, 0, 0, 0]


def test_a_full_chunk_is_not_padded_and_a_fuller_one_refused():
    assert frame_chunk([1, 2, 3], 8, 9, 0, 5) == [8, 1, 2, 3, 9]
    with pytest.raises(ValueError, match="do not fit"):
        frame_chunk([1, 2, 3, 4], 8, 9, 0, 5)
    with pytest.raises(ValueError, match="at least one"):
        split_into_chunks([1], [True], 0)


@pytest.mark.parametrize("prompt", ["", "a dog", "a corgi playing a trumpet, zebra!", " ".join(["dog"] * 75)])
def test_a_prompt_of_one_chunk_is_what_diffusers_gives_the_encoder(prompt):
    tokenizer = make_tokenizer()
    theirs = tokenizer(prompt, padding="max_length", max_length=77, truncation=True).input_ids
    assert prompt_chunks(tokenizer, prompt) == [theirs]


def test_long_prompts_continue_in_further_chunks():
    tokenizer = make_tokenizer(max_length=32)
    prompt = " ".join(["dog", "corgi"] * 40)
    pieces = prompt_pieces(tokenizer, prompt)
    assert [len(piece) for piece in pieces] == [30, 30, 20]
    assert len(prompt_chunks(tokenizer, prompt, 5)) == 5
    with pytest.raises(ValueError, match="3 chunks, not 2"):
        prompt_chunks(tokenizer, prompt, 2)
    ids = tokenizer(prompt, add_special_tokens=False).input_ids
    assert [value for piece in pieces for value in piece] == ids


def test_words_of_several_tokens_stay_together():
    tokenizer = make_tokenizer(max_length=32)
    pieces = prompt_pieces(tokenizer, " ".join(["dog"] * 28) + " zebra")
    assert len(pieces[0]) == 28 and tokenizer.decode(pieces[1]).strip() == "zebra"


def test_explain_names_unknown_words_and_their_neighbours():
    tokenizer = make_tokenizer(max_length=32)
    known = ["corgi", "riding", "a", "t-shirt"]
    told = explain_prompt(tokenizer, "A corgy (riding) a zebra, T-shirt!", known)
    assert told.unknown == {"corgy": ["corgi"], "zebra": []}
    assert len(told.chunks) == 1 and told.chunks[0][0] == "a"
    assert all("\n" not in line for line in told) and list(told) == told.lines()
    assert explain_prompt(tokenizer, "zebra").unknown == {}


@pytest.mark.parametrize(
    ("word", "instead"),
    [
        ("quokka", ["kangaroo", "wallaby", "koala"]),  # alike, the nearest first
        ("quokkas", ["kangaroo", "wallaby", "koala"]),
        ("trumpte", ["trumpet"]),  # a slip of the pen
        ("ambulence", ["ambulance"]),
        ("lorries", ["truck", "fire engine"]),  # a phrase whose words are all known
        ("knives", []),  # listed, and nothing near it is known
        ("for", []),  # "four" is spelt nearly so, and means something else
        ("xylitol", []),
    ],
)
def test_a_word_never_seen_is_answered_with_what_is_known(word: str, instead: list[str]):
    known = frozenset("kangaroo wallaby koala trumpet truck fire engine ambulance quick police four".split())
    offered = words_instead(word, known)
    assert list(offered[: len(instead)]) == instead and bool(offered) == bool(instead)
    assert all(part in known for phrase in offered for part in phrase.split())


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [
        ("dog,cat", []),
        ("the dog’s cat-dog (cat:2) [dog]", []),
        ("dog's tail", ["tail"]),
        ("dog/zzz zzz", ["zzz"]),
        ("犬" * 99, ["犬" * 40]),
        ("my tok! <fur>, T-Shirt", ["my"]),
    ],
)
def test_known_words_that_punctuation_joins_are_known(prompt: str, unknown: list[str]):
    assert list(unknown_words(prompt, ["the", "dog", "cat", "2", "tok!", "<fur>", "t-shirt"])) == unknown


def test_the_lists_of_kindred_words_hold_each_word_once_a_line():
    silent, rows = kindred._file()
    assert len(rows) > 50 and len(silent) > 50
    for row in rows:
        assert len(set(row)) == len(row) > 0 and silent.isdisjoint(row), row
        assert all(word and word == word.strip().lower() for word in row), row


def make(rows: int, length: int = 4, pooled: bool = True) -> Conditioning:
    return Conditioning(torch.randn(rows, length, 3), torch.randn(rows, 2) if pooled else None, {})


def test_join_and_select_are_inverse():
    one, two = make(2), make(3)
    both = join([one, two])
    assert len(both) == 5
    back = both.select([2, 3, 4])
    assert torch.equal(back.prompt_embeds, two.prompt_embeds)
    assert torch.equal(back.pooled_prompt_embeds, two.pooled_prompt_embeds)
    assert both.to("cpu", torch.float16).prompt_embeds.dtype == torch.float16


def test_join_refuses_what_cannot_share_a_batch():
    for other in (
        make(1, 8),
        make(1, pooled=False),
        Conditioning(torch.zeros(1, 4, 3), torch.zeros(1, 2), {"a": torch.zeros(1)}),
    ):
        with pytest.raises(ValueError, match="cannot share"):
            join([make(1), other])
