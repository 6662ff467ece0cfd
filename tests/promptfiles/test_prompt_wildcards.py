"""Wildcards: what is written, what is picked, and that no wildcard changes what another picks."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2i.errors import UsageError
from t2i.promptfiles.picks import render
from t2i.promptfiles.wildcard_files import WildcardFiles
from t2i.promptfiles.wildcards import is_dynamic, parse

patient = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
NO_FILES = WildcardFiles(None)


def pick(text: str, seed: int = 0, files: WildcardFiles = NO_FILES) -> str:
    template = parse(text)
    assert files.problems(template) == []
    return render(template, seed, "prompt", files)


def picks(text: str, files: WildcardFiles = NO_FILES, seeds: int = 200) -> set[str]:
    return {pick(text, seed, files) for seed in range(seeds)}


def folder(path: Path, **files: str) -> WildcardFiles:
    for name, text in files.items():
        file = path / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return WildcardFiles(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{a|b|c}", {"a", "b", "c"}),
        ("{a}", {"a"}),
        ("{a|}", {"a", ""}),
        ("x{ a | b }y", {"x a y", "x b y"}),
        ("{{a|b}c|d}", {"ac", "bc", "d"}),
        ("{2$$a|b|c}", {"a, b", "b, a", "a, c", "c, a", "b, c", "c, b"}),
        ("{2$$ and $$a|b}", {"a and b", "b and a"}),
        ("{2$$|$$a|b}", {"a|b", "b|a"}),
        ("{1-2$$a|b}", {"a", "b", "a, b", "b, a"}),
        ("{-2$$a|b}", {"a", "b", "a, b", "b, a"}),
        ("{1-$$a|b}", {"a", "b", "a, b", "b, a"}),
        ("{0-1$$a|b}", {"", "a", "b"}),
        ("{0::a|1::b|.5::c}", {"b", "c"}),
        ("{2$$a|0::b|c}", {"a, c", "c, a"}),
        ("{2-$$a|0::b|c}", {"a, c", "c, a"}),
        (r"\{a|b\}", {"{a|b}"}),
        (r"{a\|b|c\}}", {"a|b", "c}"}),
        (r"\\{a}", {"\\a"}),
        (r"(a\) \__b__ \x", {r"(a\) __b__ \x"}),
        (r"\${a} $5 a|b", {"$a $5 a|b"}),
        ("a__b ____ __ _a_ {}", {"a__b ____ __ _a_ "}),
        ("plain \\ text", {"plain \\ text"}),
    ],
)
def test_what_is_written_and_what_comes_out(text: str, expected: set[str]) -> None:
    assert picks(text) == expected


def test_a_pick_is_the_documented_hash() -> None:
    options = ["red", "green", "blue"]
    for seed in range(50):
        key = f"{seed}\nprompt\n1\n{{red|green|blue}}"
        number = int(hashlib.sha256(key.encode()).hexdigest(), 16)
        second = options[number % 3_000_000 // 1_000_000]
        assert pick("{red|green|blue} and {red|green|blue}", seed).endswith(f" and {second}")


def test_picks_are_as_frequent_as_their_weights() -> None:
    counts = Counter(pick("{a|b|2::c}", seed) for seed in range(4000))
    for text, expected in (("a", 1000), ("b", 1000), ("c", 2000)):
        assert abs(counts[text] - expected) < 5 * (expected * 0.75) ** 0.5
    pairs = Counter(pick("{2$$a|b|c}", seed) for seed in range(3000))
    assert len(pairs) == 6 and all(abs(count - 500) < 5 * 500**0.5 for count in pairs.values())


def test_equal_wildcards_pick_for_themselves() -> None:
    assert len(picks("{a|b} {a|b}")) == 4
    assert len(picks("{{a|b}} {a|b}")) == 4
    assert len(picks("{2$$x{a|b}|y{a|b}}")) == 8
    one = parse("{a|b}")
    scopes = [[render(one, seed, scope, NO_FILES) for seed in range(50)] for scope in ("prompt", "other")]
    assert scopes[0] != scopes[1]


# Wildcards that can be told apart in the text that comes out: number 3 picks "3a", "3b", …
numbered = st.integers(0, 10**6)


def wildcard(number: int) -> str:
    if number % 2:
        return f"{{{number}a|{number}b|{number}c|{number}d}}"
    return f"{{{number}{{a|b}}{{a|b}}|{number}{{c|d|__letter__}}}}"


@patient
@given(st.lists(numbered, unique=True, min_size=1, max_size=6), st.data(), st.integers(0, 2**63 - 1))
def test_adding_and_moving_changes_no_other_pick(
    letters: WildcardFiles, numbers: list[int], data: st.DataObject, seed: int
) -> None:
    def picked(order: list[int]) -> dict[int, str]:
        text = pick(" ".join(map(wildcard, order)), seed, letters)
        return dict(zip(order, text.split(" "), strict=True))

    before = picked(numbers)
    assert picked(data.draw(st.permutations(numbers))) == before
    new = data.draw(numbered.filter(lambda number: number not in numbers))
    place = data.draw(st.integers(0, len(numbers)))
    after = picked([*numbers[:place], new, *numbers[place:]])
    del after[new]
    assert after == before


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> WildcardFiles:
    path = tmp_path_factory.mktemp("letters")
    (path / "letter.txt").write_text("x\ny\nz\n")
    return WildcardFiles(path)


@patient
@given(st.text(st.sampled_from("ab {}|\\$_:1-2.")), st.integers(0, 99))
def test_any_text_is_parsed_or_refused(text: str, seed: int) -> None:
    try:
        template = parse(text)
    except UsageError:
        return
    if not NO_FILES.problems(template):
        written = render(template, seed, "prompt", NO_FILES)
        assert is_dynamic(template) or "\\" in text or written == text


@patient
@given(st.text())
def test_escaped_text_comes_out_as_it_was(text: str) -> None:
    marks = re.compile(r"(\\*)([{}|$]|__)")
    escaped = marks.sub(lambda found: found[1] * 2 + "".join("\\" + one for one in found[2]), text)
    if "__" not in text:  # \_ is no escape: only the whole \__name__ is
        assert pick(escaped) == text


def test_files(tmp_path: Path) -> None:
    files = folder(
        tmp_path,
        colour="\ufeff# colours\n\nred\r\n  dark __shade__  \n",
        shade="{blue|green}\n",
        **{"a/b_c": "deep\n", "weighted": "0::never\nalways\n"},
    )
    assert picks("__colour__", files) == {"red", "dark blue", "dark green"}
    assert picks("{__colour__|x}", files) == {"red", "dark blue", "dark green", "x"}
    assert picks("__a/b_c__!", files) == {"deep!"}
    assert picks("__weighted__", files) == {"always"}
    assert picks("{2$$__colour__}", files) == {
        f"{one}, {other}"
        for shade in ("dark blue", "dark green")
        for one, other in (("red", shade), (shade, "red"))
    }


def problems(files: WildcardFiles, text: str) -> list[str]:
    return [f"{error.message} | {error.hint}" for error in files.problems(parse(text))]


def test_what_cannot_be_picked_is_told_before(tmp_path: Path) -> None:
    files = folder(tmp_path / "w", colour="red\n", loop="__pool__\n", pool="x\n__loop__\n", empty="# no\n\n",
                   torn="a\n{b\n", user="__missing__\n")  # fmt: skip
    (tmp_path / "w" / "latin.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "secret.txt").write_text("told\n")
    (tmp_path / "w" / "link.txt").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "w" / "ring.txt").symlink_to(tmp_path / "w" / "ring.txt")
    for text, expected in {
        "__colr__": "there is no colr.txt",
        "__../secret__": "leads out",
        "__x/../../secret__": "leads out",
        "__link__": "leads out",
        "__a//colour__": "leads out",
        "__ring__": "there is no ring.txt",
        "__" + "x" * 5000 + "__": "there is no",
        "__col*__": "patterns",
        "__loop__": "contain each other: loop → pool → loop",
        "__empty__": "no lines to pick from",
        "__torn__": "torn.txt line 2: { without a }",
        "__user__": "wildcard file user.txt: __missing__: there is no missing.txt",
        "__latin__": "not UTF-8",
        "{2$$__colour__}": "2 different options are wanted, but there are 1",
        "{a|{b|__colr__}}": "did you mean __colour__?",
    }.items():
        (told,) = problems(files, text)
        assert expected in told
    assert len(problems(files, "__colr__ __loop__ {2$$__colour__} __colr__")) == 3
    assert "no folder" in problems(NO_FILES, "__colour__")[0]


def test_wildcards_that_multiply_are_refused_at_once(tmp_path: Path) -> None:
    names = [f"w{number}" for number in range(30)]
    chain = {name: f"__{after}__ __{after}__\n" for name, after in pairwise(names)}
    files = folder(tmp_path, **chain, w29="x\n")
    assert "more than 100000 characters" in problems(files, "__w0__")[0]
    files = folder(tmp_path / "broken", **chain, w29="{x\n")
    assert len(problems(files, "__w0__")) == 1
    names = [f"d{number}" for number in range(60)]
    files = folder(
        tmp_path / "deep", d59="x",
        **{name: f"__{after}__" for name, after in pairwise(names)},
    )  # fmt: skip
    assert "inside of each other" in problems(files, "__d0__")[0]
    fresh = WildcardFiles(tmp_path / "deep")
    for name in reversed(names):  # whichever is asked for first
        told = problems(fresh, f"__{name}__")
    assert "inside of each other" in told[0]
    assert picks("__d40__", WildcardFiles(tmp_path / "deep"), seeds=1) == {"x"}


def test_very_long_texts_take_no_more_than_linear_time() -> None:
    for piece in ("\\", "\\{", "__a", "{a}", "$", "_", "{a|b} "):
        text = piece * 20_000
        try:
            NO_FILES.problems(parse(text))
        except UsageError:
            pass
