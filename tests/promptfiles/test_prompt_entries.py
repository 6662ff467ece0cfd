"""Seeds, repeats, axes, defaults: which pictures a file asks for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2i.config.generate import SEED_LIMIT
from t2i.promptfiles import Entry, PromptFile, PromptFileError, PromptOptions, parse_prompt_file

patient = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def read(text: str, format: str = "txt", **options: Any) -> PromptFile:
    return parse_prompt_file(text.encode(), format, options=PromptOptions(**{"run_seed": 0, **options}))


def pictures(file: PromptFile) -> list[tuple[Any, ...]]:
    """Everything that shapes each picture: a second reading of what an entry says."""
    found: list[tuple[Any, ...]] = []
    for entry in file.entries:
        values = entry.config.to_dict()
        images, seed = values.pop("num_images"), values.pop("seed")
        values.pop("batch_size")
        found += [(str(sorted(values.items())), seed + k) for k in range(images)]
    return found


def seeds(file: PromptFile) -> list[int]:
    return [seed for _, seed in pictures(file)]


def test_image_k_has_seed_plus_k_and_repeats_go_on() -> None:
    assert seeds(read("a --d 5 --num-images 3")) == [5, 6, 7]
    assert seeds(read("a --d 5 --num-images 2", repeat=3)) == [5, 6, 7, 8, 9, 10]
    assert seeds(read("a --d 5,100", repeat=2)) == [5, 6, 100, 101]
    assert [entry.image_index for entry in read("a --d 5,100 --num-images 2", repeat=2).entries] == [
        0,
        2,
        4,
        6,
    ]


def test_seed_of_the_line_then_of_the_command_then_of_the_header() -> None:
    text = '{"defaults": {"seed": 1, "steps": 5}}\n{"prompt": "a", "seed": 3}\n"b"'
    assert seeds(read(text, "jsonl")) == [3, 1]
    assert seeds(read(text, "jsonl", defaults={"seed": 2})) == [3, 2]
    file = read(text, "jsonl", defaults={"steps": 6})
    assert [entry.config.steps for entry in file.entries] == [6, 6]


def test_the_same_line_again_goes_on_unless_it_says_its_seed() -> None:
    file = read("a\nb\na\n", defaults={"seed": 7})
    assert (seeds(file), file.duplicates) == ([7, 7, 8], 0)
    file = read("a\na\na", repeat=2, defaults={"num_images": 2})
    first = seeds(file)[0]
    assert seeds(file) == list(range(first, first + 12))
    file = read("a --d 7\na --d 7")
    assert (seeds(file), file.duplicates) == ([7, 7], 1)


def test_equal_lines_of_different_counts_do_not_overlap() -> None:
    file = read("a --num-images 2\na --num-images 3 --f x.png\na --batch-size 2")
    assert len(set(seeds(file))) == 6 and file.duplicates == 0


def test_lines_that_differ_in_a_setting_share_their_noise() -> None:
    one, two = seeds(read("a --s 20\na --s 30"))
    assert one == two


def test_seeds_that_nobody_gave_come_from_the_run_and_the_prompt() -> None:
    assert seeds(read("a\nb")) == seeds(read("b\na"))[::-1] == [*seeds(read("a")), *seeds(read("b"))]
    assert seeds(read("a")) != seeds(read("a", run_seed=1))
    file = parse_prompt_file(b"a\nb\nc", "txt")
    assert seeds(file) == seeds(read("a\nb\nc", run_seed=file.run_seed))
    assert len(set(seeds(file))) == 3 and max(seeds(file)) < 2**32


lines = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "{x|y|z} c", "d {2$$p|q|r}"]),
        st.sampled_from(["", " --s 20", " --s 30", " --n {dark|blurry}"]),
        st.sampled_from(["", " --num-images 3"]),
    ).map("".join),
    min_size=1, max_size=6,
)  # fmt: skip


@patient
@given(lines, st.data(), st.integers(1, 3))
def test_no_picture_twice_in_any_order_of_lines(rows: list[str], data: st.DataObject, repeat: int) -> None:
    drawn = [pictures(read("\n".join(rows), repeat=repeat))]
    drawn.append(pictures(read("\n".join(data.draw(st.permutations(rows))), repeat=repeat)))
    # `{x|y} c` may pick what another line says, but never with the same seed.
    assert len(set(drawn[0])) == len(drawn[0])
    assert sorted(drawn[0]) == sorted(drawn[1])


given_seeds = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 6), st.integers(1, 4)), min_size=1, max_size=6
)


@patient
@given(given_seeds)
def test_duplicates_are_counted(rows: list[tuple[str, int, int]]) -> None:
    file = read("\n".join(f"{prompt} --d {seed} --num-images {count}" for prompt, seed, count in rows))
    assert file.duplicates == len(pictures(file)) - len(set(pictures(file)))


def test_axes_are_every_combination_the_first_slowest() -> None:
    file = read("a\nb --d 1", axes=["steps=20,30", "size=64x64,96x64"], defaults={"seed": 9})
    shape = [(e.config.prompts[0], e.config.steps, e.config.width, e.config.seed) for e in file.entries]
    assert shape == [
        (prompt, steps, width, seed)
        for prompt, seed in (("a", 9), ("b", 1))
        for steps in (20, 30)
        for width in (64, 96)
    ]
    assert file.entries[1].axes == (("steps", "20"), ("size", "96x64"))
    assert [entry.image_index for entry in file.entries] == [0, 1, 2, 3] * 2
    assert {entry.line_images for entry in file.entries} == {4}
    assert (file.prompts, file.images) == (2, 8)


def test_values_of_axes() -> None:
    axes = ["seed=3..5", 'scheduler=euler,"DPM++ 2M Karras"', 'negative-prompt=,"dark, grey"']
    file = read("a", axes=axes)
    assert seeds(file) == [3] * 4 + [4] * 4 + [5] * 4
    assert [entry.config.scheduler for entry in file.entries[:4:2]] == ["euler", "dpm++2m-karras"]
    assert [entry.config.negative_prompt for entry in file.entries[:2]] == ["", "dark, grey"]
    assert read("a", axes=["seed=1,2", "num-images=1,2"]).duplicates == 3  # seeds 1 1+2 2 2+3


def test_an_axis_beats_defaults_but_not_a_line() -> None:
    assert [e.config.steps for e in read("a", axes=["steps=3"], defaults={"steps": 9}).entries] == [3]
    with pytest.raises(PromptFileError, match="--steps is given here and by an --axis"):
        read("a --s 9", axes=["steps=3"])


def test_every_picture_of_a_wildcard_line_has_its_own_words() -> None:
    file = read("a {red|blue|green} fox --d 3 --num-images 4 --n {dark|grey}", repeat=2)
    assert [entry.config.seed for entry in file.entries] == list(range(3, 11))
    assert {entry.images for entry in file.entries} == {1} and file.images == 8
    assert len({entry.config.prompts for entry in file.entries}) == 3
    assert {entry.template for entry in file.entries} == {"a {red|blue|green} fox"}
    assert {entry.negative_template for entry in file.entries} == {"{dark|grey}"}
    alone = [
        read(f"a {{red|blue|green}} fox --d {seed} --n {{dark|grey}}").entries[0] for seed in range(3, 11)
    ]
    assert [entry.config for entry in alone] == [entry.config for entry in file.entries]


def test_a_line_without_picks_is_one_entry() -> None:
    (entry,) = read(r"a \{fox\} --num-images 4").entries
    assert (entry.images, entry.config.prompts) == (4, ("a {fox}",))
    assert isinstance(entry, Entry)


def test_the_last_seeds_that_fit() -> None:
    assert seeds(read(f"a --d {SEED_LIMIT - 2}", repeat=2)) == [SEED_LIMIT - 2, SEED_LIMIT - 1]
    with pytest.raises(PromptFileError, match="too large for 3 pictures"):
        read(f"a --d {SEED_LIMIT - 2}", repeat=3)


def test_more_pictures_than_can_be_planned_are_refused_at_once() -> None:
    with pytest.raises(PromptFileError, match="more than 1,000,000 pictures"):
        read("a --num-images 100000\n" * 20)
    with pytest.raises(PromptFileError, match="combinations"):
        read("a", axes=["seed=1..10000", "steps=1..1000"])


def test_wrong_words_of_an_axis_or_a_default_are_told_once() -> None:
    for options in ({"axes": ["negative-prompt={a"]}, {"defaults": {"negative_prompt": "{a"}}):
        with pytest.raises(PromptFileError) as caught:
            read("a\nb\nc", **options)
        assert [mistake.line for mistake in caught.value.mistakes] == [None]


def test_picks_in_an_axis() -> None:
    file = read("a --num-images 30", axes=["negative-prompt={b|c},d"], defaults={"seed": 0})
    shown = [entry.config.negative_prompt for entry in file.entries]
    assert set(shown[:30]) == {"b", "c"} and shown[30:] == ["d"]
    assert [entry.image_index for entry in file.entries] == list(range(31))
