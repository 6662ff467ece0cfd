"""Every format: what it means, where its records begin, and that all of them can say the same."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2i.config import GenerateConfig
from t2i.config.output import OutputConfig
from t2i.errors import StorageError, UsageError
from t2i.promptfiles import (
    FORMATS,
    PromptFile,
    PromptFileError,
    PromptOptions,
    parse_prompt_file,
    read_prompt_file,
)

SEEDED = PromptOptions(run_seed=0)
EXAMPLES = Path(__file__).parents[2] / "examples" / "batch"
patient = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def read(text: str, format: str, **options: Any) -> PromptFile:
    return parse_prompt_file(text.encode(), format, options=PromptOptions(**{"run_seed": 0, **options}))


def said(file: PromptFile) -> list[dict[str, Any]]:
    """What each entry says beside its defaults, and without seeds that nobody gave."""
    plain = GenerateConfig().to_dict()
    return [
        {name: value for name, value in entry.config.to_dict().items() if value != plain[name]}
        for entry in file.entries
    ]


def test_plain_lines_comments_and_blank_lines() -> None:
    file = read("# a title\n\n  a corgi  \n\t# not a prompt\na fox, 50% -- really -x 3\n\\# a hash\n", "txt")
    assert [(entry.line, entry.config.prompts) for entry in file.entries] == [
        (3, ("a corgi",)),
        (5, ("a fox, 50% -- really -x 3",)),
        (6, ("# a hash",)),
    ]
    assert (file.prompts, file.images) == (3, 3)


def test_kohya_options() -> None:
    line = "a fox, x --n blurry, dark --w 512 --H 768 --s 28 --d 5 --l 7.5 --f pics/fox.png"
    (entry,) = read(line, "txt").entries
    assert entry.config == GenerateConfig(
        ("a fox, x",), "blurry, dark", 28, 7.5, seed=5, width=512, height=768
    )
    assert entry.output == "pics/fox.png"


def test_several_seeds_are_several_pictures_of_one_line() -> None:
    file = read("a fox --d 5,9 --f x.png", "txt")
    assert [entry.config.seed for entry in file.entries] == [5, 9]
    assert [(entry.image_index, entry.line_images) for entry in file.entries] == [(0, 2), (1, 2)]
    assert (file.prompts, file.images) == (1, 2)


def test_long_options_quotes_and_escapes() -> None:
    (entry,) = read(
        'a \\--dog "so --steps" x --scheduler="DPM++ 2M Karras" --cfg 3 --n "" --no-deterministic', "txt",
        defaults={"negative_prompt": "blurry", "deterministic": True},
    ).entries  # fmt: skip
    assert entry.config.prompts == ('a --dog "so --steps" x',)
    assert (entry.config.scheduler, entry.config.guidance_scale) == ("dpm++2m-karras", 3)
    assert (entry.config.negative_prompt, entry.config.deterministic) == ("", False)


@pytest.mark.parametrize(
    ("counts", "images"),
    [("", 1), ("--n_iter 2", 2), ("--batch_size 3", 3), ("--n_iter 2 --batch_size 3", 6),
     ("--n_iter 2 --num-images 5", 5), ("--batch_size 3 --num-images 5", 5)],
)  # fmt: skip
def test_the_form_of_automatic1111(counts: str, images: int) -> None:
    line = (
        '--prompt "a \\"cat\\", big" on a mat --negative_prompt blurry \'very dark\' --steps 20 '
        f'--cfg_scale 7 --sampler_name "Euler a" --seed -1 --width 512 --height 256 {counts}'
    )
    (entry,) = read(line, "txt").entries
    assert entry.config.replace(seed=0, batch_size=None) == GenerateConfig(
        ('a "cat", big on a mat',), "blurry very dark", 20, 7.0, "euler-a", 0, 512, 256, images
    )


def test_a_count_of_pictures_fixes_no_batch_size() -> None:
    assert read("--prompt a --batch_size 3", "txt").entries[0].config.batch_size is None
    assert read("--prompt a --batch_size 3 --num_images 5", "txt").entries[0].config.batch_size == 3


def test_outside_the_long_form_batch_size_is_no_count() -> None:
    assert read("a cat --batch-size 3", "txt").images == 1


def test_jsonl() -> None:
    text = """
{"defaults": {"steps": 30, "negative-prompt": "dark"}}

{"prompt": "a fox", "CFG_Scale": 5, "name": "fox", "size": "64x32", "height": null}
"a castle"
"""
    file = read(text, "jsonl", defaults={"seed": 1})
    assert [entry.line for entry in file.entries] == [4, 5]
    shared = {"steps": 30, "negative_prompt": "dark", "seed": 1}
    assert said(file) == [
        {"prompts": ["a fox"], "guidance_scale": 5.0, "width": 64, "height": 32, **shared},
        {"prompts": ["a castle"], **shared},
    ]
    assert [entry.label for entry in file.entries] == ["fox", "a castle"]


def test_csv_counts_from_the_line_where_a_record_starts() -> None:
    long = "x" * 200_000
    limit = csv.field_size_limit()
    file = read(f'Prompt,steps,seed\n"a fox,\nor ""two""\n",20,1\n\n,,\n"b\n{long}",,2\nc\n', "csv")
    assert [(entry.line, entry.config.prompts[0], entry.config.steps) for entry in file.entries] == [
        (2, 'a fox,\nor "two"\n', 20),
        (7, f"b\n{long}", None),
        (9, "c", None),
    ]
    assert csv.field_size_limit() == limit


def test_toml_lines() -> None:
    text = '''
# prompts = [1]
steps = 30
negative-prompt = """
[[prompts]]
prompt = "no" """

[[prompts]]  # the first
prompt = 'a fox'
"seed" = 1

[[ prompts ]]
seed = [
  2,
  3,
]
prompt = "b"
'''
    file = read(text, "toml")
    assert [(entry.line, entry.config.prompts[0], entry.config.seed) for entry in file.entries] == [
        (8, "a fox", 1),
        (12, "b", 2),
        (12, "b", 3),
    ]
    assert {entry.config.negative_prompt for entry in file.entries} == {'[[prompts]]\nprompt = "no" '}
    listed = 'prompts = [ "a", "[b", # "c"\n\n {prompt = "d", seed = 1}, \'e\',\n\n"f"]\nsteps = 5'
    assert [entry.line for entry in read(listed, "toml").entries] == [1, 1, 3, 3, 5]
    with pytest.raises(PromptFileError) as caught:
        read("[[prompts]]\nprompt = 'a'\n[[prompts]]\nprompt = 'b'\n\nstepz = 3\nwidth = 9\n", "toml")
    assert [mistake.line for mistake in caught.value.mistakes] == [6, 7]


def test_yaml_lines() -> None:
    text = "steps: 30\nprompts:\n- a fox\n\n- prompt: |\n    two\n    lines\n  seed: [4, 5]\n"
    file = read(text, "yaml")
    assert [(entry.line, entry.config.prompts[0], entry.config.seed) for entry in file.entries][1:] == [
        (5, "two\nlines\n", 4),
        (5, "two\nlines\n", 5),
    ]
    assert [entry.config.steps for entry in file.entries] == [30, 30, 30]
    assert read("- a\n- b\n", "yaml").prompts == 2
    assert [entry.line for entry in read('- "a\u2028\x85🦊"\n- b\n', "yaml").entries] == [1, 2]


def test_yaml_with_the_reader_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    assert read("- a\n- prompt: b\n  seed: 3\n", "yaml").entries[1].config.seed == 3
    with pytest.raises(PromptFileError, match="not YAML"):
        read('- "\\U99999999"', "yaml")


def test_yaml_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(PromptFileError, match="PyYAML"):
        read("- a", "yaml")


@pytest.mark.parametrize("format", FORMATS)
def test_byte_order_mark_and_line_ends(format: str) -> None:
    text = {
        "txt": "a\nb --s 5\n",
        "jsonl": '"a"\n{"prompt": "b", "steps": 5}\n',
        "csv": "prompt,steps\na,\nb,5\n",
        "toml": "prompts = ['a',\n{prompt = 'b', steps = 5}]\n",
        "yaml": "- a\n- prompt: b\n  steps: 5\n",
    }[format]
    plain = read(text, format)
    assert said(plain)[1]["steps"] == 5
    if format in ("txt", "jsonl"):  # files that were joined: cat a.txt b.txt
        assert parse_prompt_file(text.encode("utf-8-sig") * 2, format, options=SEEDED).prompts == 4
    for data in (b"\xef\xbb\xbf" + text.encode(), text.replace("\n", "\r\n").encode()):
        assert parse_prompt_file(data, format, options=SEEDED).entries == plain.entries


def test_every_option_and_alias_of_generate_is_a_key() -> None:
    values = {"scheduler": "euler", "dtype": "fp32", "deterministic": True, "negative_prompt": "x",
              "lora": ("a.safetensors:0.5",), "embedding": ("b.safetensors",), "controlnet": "canny",
              "control_image": "lines.png", "control_kind": "edges"}  # fmt: skip
    for name, described in {**GenerateConfig.options(), "output": OutputConfig.options()["output"]}.items():
        if name == "prompts":
            continue
        value = values.get(name, "cpu" if name in ("model", "device") else 8)
        value = "a.png" if name == "output" else value
        spellings = {name, name.replace("_", "-"), name.upper()}
        spellings |= {alias[2:] for alias in described.names if alias.startswith("--")}
        for spelling in spellings:
            (entry,) = read(json.dumps({"prompt": "a", spelling: value}), "jsonl").entries
            assert value == (entry.output if name == "output" else getattr(entry.config, name))


# Texts that no format needs to escape in a way of its own: one line, no wildcards.
words = st.text(
    st.characters(
        codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="{}_\\\ufeff"
    ),
    min_size=1,
).filter(lambda text: text.strip() == text)
records = st.lists(
    st.fixed_dictionaries(
        {"prompt": words},
        optional={
            "negative_prompt": words,
            "steps": st.integers(1, 1000),
            "guidance_scale": st.floats(1, 100),
            "seed": st.integers(0, 2**60),
            "width": st.integers(1, 1024).map(lambda eighth: eighth * 8),
            "num_images": st.integers(1, 100),
            "deterministic": st.booleans(),
            "scheduler": st.sampled_from(["euler", "ddim", "dpm++2m"]),
        },
    ),
    min_size=1,
    max_size=5,
)  # fmt: skip


def write_txt(rows: list[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        options = [
            f"--{key.replace('_', '-')} {value}" for key, value in row.items() if key not in ("prompt",)
        ]
        lines.append(" ".join([row["prompt"], *options]))
    return "\n".join(lines)


def write_csv(rows: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, sorted({key for row in rows for key in row}))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def write_toml(rows: list[dict[str, Any]]) -> str:
    tables = [
        [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in row.items()] for row in rows
    ]
    return "\n".join("\n".join(["[[prompts]]", *table]) for table in tables)


def plain_in_txt(rows: list[dict[str, Any]]) -> bool:
    texts = [row[key] for row in rows for key in ("prompt", "negative_prompt") if key in row]
    return not any("--" in text or text[0] in "#\"'" or '"' in text or "'" in text for text in texts)


@settings(patient, max_examples=25)
@given(records)
def test_all_formats_say_the_same(rows: list[dict[str, Any]]) -> None:
    expected = [
        GenerateConfig(prompts=(row["prompt"],), **{key: row[key] for key in row if key != "prompt"})
        for row in rows
    ]
    written = {
        "jsonl": "\n".join(map(json.dumps, rows)),
        "csv": write_csv(rows),
        "toml": write_toml(rows),
        "yaml": yaml.safe_dump(rows),
    }
    if plain_in_txt(rows):
        written["txt"] = write_txt(rows)
    for format, text in written.items():
        file = read(text, format)
        assert len(file.entries) == len(rows), format
        for entry, config in zip(file.entries, expected, strict=True):
            seed = entry.config.seed if config.seed is None else config.seed
            assert entry.config == config.replace(seed=seed), format


# Pieces out of which every format is made, so that arbitrary files get past its first character.
pieces = st.lists(
    st.sampled_from(
        ['"', "'", "\n", "{", "}", "[", "]", ",", ":", "prompt", "steps", "seed", "=", "- ", "--", " ", "#",
         "|", "$$", "2$$", "\\", "__", "a", "::", "é", "\0", "\ufeff", "5", "nan", "1e999", "&a ", "*a",
         "!!int ", "prompts", "[[prompts]]", "defaults", "null", '"""', "\r", "<<", "2020-99-99", "\u2028",
         "${", "--n ", "--d ", "1,2"]
    ), max_size=25,
).map("".join)  # fmt: skip


@settings(patient, max_examples=150)
@given(st.one_of(pieces.map(str.encode), st.binary(max_size=60)), st.sampled_from(FORMATS))
def test_any_file_is_read_or_refused(data: bytes, format: str) -> None:
    try:
        file = parse_prompt_file(data, format, options=SEEDED)
    except PromptFileError as error:
        lines = data.count(b"\n") + data.count(b"\r") + 1
        assert error.mistakes and error.exit_code == 2
        assert all(mistake.line is None or 1 <= mistake.line <= lines for mistake in error.mistakes)
    else:
        assert file.entries and file.images == sum(entry.images for entry in file.entries)


def test_where_files_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.TXT"
    path.write_text("a fox")
    assert read_prompt_file(path, options=SEEDED).entries[0].config.prompts == ("a fox",)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'"a"\n"b"')))
    file = read_prompt_file("-", format="jsonl", options=SEEDED)
    assert (file.prompts, file.source) == (2, "stdin")
    for bad, error in [
        (tmp_path, "a folder"),
        (tmp_path / "none.txt", "no such"),
        (path / "x.txt", "cannot read"),
        ("a\0.txt", "cannot read"),
    ]:
        with pytest.raises(StorageError, match=error) as caught:
            read_prompt_file(bad, format="txt")
        assert caught.value.exit_code == 4
    for source, format in [(tmp_path / "p.gif", None), (tmp_path / "p", None), (path, "xml")]:
        with pytest.raises(UsageError, match=r"--format|unknown kind"):
            read_prompt_file(source, format=format)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.txt").write_text("a fox")
    monkeypatch.setattr("t2i.promptfiles.sources.MOST_BYTES", 4)
    with pytest.raises(StorageError, match="larger than"):
        read_prompt_file(tmp_path / "p.txt")


def test_the_examples_can_be_read() -> None:
    lines = read_prompt_file(
        EXAMPLES / "prompts.txt", options=PromptOptions(wildcards=EXAMPLES / "wildcards", run_seed=0)
    )
    assert (lines.prompts, lines.images) == (5, 8)
    objects = read_prompt_file(EXAMPLES / "prompts.jsonl", options=SEEDED)
    assert (objects.prompts, objects.images) == (3, 6)


def test_nothing_heavy_is_imported() -> None:
    heavy = ("torch", "diffusers", "transformers", "accelerate", "peft", "numpy")
    code = (
        "import sys; from t2i.promptfiles import PromptOptions, parse_prompt_file;"
        "parse_prompt_file(b'- a {b|c}', 'yaml', options=PromptOptions(axes=['scheduler=euler,ddim']));"
        f"sys.exit(any(name in sys.modules for name in {heavy}))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
