"""Which size a picture is trained at, what each step sees, and what it is told of it."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2i.dataset import BucketPlan, Example, ImageFolder, Turns, batch_rows, load_pictures
from t2i.dataset.decoding import crop_of
from t2i.errors import DatasetError, UsageError


def old_batch_rows(count: int, batch_size: int, step: int, seed: int) -> np.ndarray:
    """The draws of the first version, which running trainings depend on."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    orders = [np.random.default_rng([seed, n]).permutation(count) for n in range(positions[-1] // count + 1)]
    return np.array([orders[position // count][position % count] for position in positions])


def folder_of(root: Path, sizes: list[tuple[int, int]], **changes: object) -> ImageFolder:
    """Pictures of these sizes, black on the left and white on the right, with captions c0, c1, …"""
    examples = []
    for number, (width, height) in enumerate(sizes):
        values = np.zeros((height, width, 3), np.uint8)
        values[:, width // 2 :] = 255
        values[0, 0] = number
        Image.fromarray(values).save(root / f"{number:03d}.png")
        examples.append(Example(root / f"{number:03d}.png", f"c{number}", **changes))  # type: ignore[arg-type]
    return ImageFolder(root, tuple(examples), "none")


@pytest.mark.parametrize(("count", "batch_size"), [(7, 3), (3, 7), (5, 5), (1, 4)])
def test_the_draws_are_those_of_the_first_version(count: int, batch_size: int) -> None:
    for seed in (0, 5):
        for step in range(9):
            expected = old_batch_rows(count, batch_size, step, seed)
            assert np.array_equal(batch_rows(count, batch_size, step, seed), expected)


def test_one_bucket_is_as_without_buckets(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [(20, 20), (16, 16), (30, 30), (17, 17), (18, 18)])
    plain = load_pictures(folder, 16, tmp_path / "plain")
    plan = load_pictures(folder, 16, tmp_path / "plan", BucketPlan(16, 8))
    assert plain.key == plan.key and plain.captions == plan.captions == ["c0", "c1", "c2", "c3", "c4"]
    for step in range(6):
        rows = plain.rows(step, 2, 3)
        assert np.array_equal(rows, old_batch_rows(5, 2, step, 3))
        assert np.array_equal(rows, plan.rows(step, 2, 3)) and np.array_equal(rows, plan.views(rows))
        assert np.array_equal(plain.pixels(rows), plan.pixels(rows))


def test_sizes_of_buckets() -> None:
    plan = BucketPlan(512)
    assert (512, 512) in plan.sizes and len(plan.sizes) > 8
    for width, height in plan.sizes:
        assert width % 64 == height % 64 == 0 and 256 <= min(width, height) and max(width, height) <= 1024
        assert width * height <= 512**2 and (height, width) in plan.sizes
        long, short = max(width, height), min(width, height)
        assert (long + 64) * short > 512**2 or long == 1024, "no longer one would have the area"
    assert BucketPlan(64, 8, 48, 96).sizes == ((48, 80), (56, 72), (64, 64), (72, 56), (80, 48))
    assert BucketPlan(16, 8).size_for(48, 24) == (16, 16), "as near as 4:1, and nearer to a square"


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        ((1000, 1000), (512, 512)),
        ((3000, 2000), (576, 384)),
        ((2000, 3000), (384, 576)),
        ((1920, 1080), (640, 384)),
        ((10_000, 100), (1024, 256)),
        ((100, 100), (512, 512)),
    ],
)
def test_the_bucket_has_the_nearest_ratio(size: tuple[int, int], bucket: tuple[int, int]) -> None:
    plan = BucketPlan(512)
    found = plan.size_for(*size)
    wanted = math.log(size[0] / size[1])
    distance = {one: abs(math.log(one[0] / one[1]) - wanted) for one in plan.sizes}
    assert distance[found] == pytest.approx(min(distance.values()))
    if bucket in distance:
        assert distance[found] <= distance[bucket]


def test_without_upscaling_small_pictures_keep_their_size() -> None:
    plan = BucketPlan(512, upscale=False)
    assert plan.size_for(300, 400) == (256, 384)
    assert plan.size_for(100, 400) == (256, 384), "but for the shortest side"
    assert plan.size_for(2000, 2000) == (512, 512)
    assert plan.size_for(511, 511) == (448, 448)


def test_impossible_plans() -> None:
    with pytest.raises(UsageError, match="--resolution 600: buckets need a multiple of --bucket-step 64"):
        BucketPlan(600)
    with pytest.raises(UsageError, match="leave out --resolution 512"):
        BucketPlan(512, smallest=576)


def test_steps_are_of_one_bucket_and_see_all_pictures_equally(tmp_path: Path) -> None:
    sizes = [(24, 24)] * 7 + [(48, 24)] * 3 + [(24, 48)] * 1
    pictures = load_pictures(folder_of(tmp_path, sizes), 32, tmp_path / "cache", BucketPlan(32, 8))
    assert [table.shape for table in pictures.tables] == [(1, 3, 40, 24), (7, 3, 32, 32), (3, 3, 24, 40)]
    passes, batch_size = 12, 4
    seen: Counter[int] = Counter()
    steps = sum(-(-passes * count // batch_size) for count in (1, 7, 3))
    for step in range(steps):
        rows = pictures.rows(step, batch_size, 1)
        assert len({sizes[row] for row in rows}) == 1, "one size in a step"
        assert pictures.pixels(rows).shape == (4, 3, *pictures.shape_of(rows[0]))
        assert np.array_equal(rows, pictures.rows(step, batch_size, 1)), "nothing is remembered"
        seen.update(rows.tolist())
    assert all(passes <= seen[row] <= passes + 4 for row in range(11)), seen
    orders = [[Turns((7, 3, 1), 4, seed).of(step)[0] for step in range(20)] for seed in (0, 1)]
    assert orders[0] != orders[1]
    with pytest.raises(ValueError, match="2 buckets"):
        pictures.pixels(np.array([0, 7]))


def test_turns_count_the_batches_of_each_bucket() -> None:
    turns, counted = Turns((5, 3, 9), 2, 7), Counter[int]()
    for step in range(200):
        bucket, number = turns.of(step)
        assert number == counted[bucket]
        counted[bucket] += 1
    assert counted[2] / counted[1] == pytest.approx(3, rel=0.1)


def test_repeats_are_ratios(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [(16, 16)] * 3)
    often = tuple(
        Example(example.file, example.caption, repeats=repeats)
        for example, repeats in zip(folder.examples, (10, 10, 30), strict=True)
    )
    pictures = load_pictures(ImageFolder(tmp_path, often, "none"), 8, tmp_path / "cache")
    seen = Counter(np.concatenate([pictures.rows(step, 5, 0) for step in range(4)]).tolist())
    assert seen == {0: 4, 1: 4, 2: 12}


def test_captions_are_drawn_anew_in_each_pass_and_rows_have_pictures_and_views(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [(16, 16), (48, 16), (16, 16)])
    more = (("c0b", "c0c"), (), ("c2b",))
    examples = tuple(
        Example(example.file, example.caption, further)
        for example, further in zip(folder.examples, more, strict=True)
    )
    for flip in (False, True):
        pictures = load_pictures(
            ImageFolder(tmp_path, examples, "none"), 16, tmp_path / f"cache{flip}", BucketPlan(16, 8),
            random_flip=flip,
        )  # fmt: skip
        assert len(pictures.captions) == 6 * (1 + flip) and len(pictures) == 3
        seen = Counter[tuple[int, str, bool]]()
        for step in range(400):
            for row in pictures.rows(step, 1, 0).tolist():
                picture = int(pictures.pictures_of(np.array([row]))[0])
                assert pictures.captions[row] in examples[picture].captions
                pixels = pictures.pixels(np.array([row]))[0]
                mirrored = bool(pixels[0, 4, 0] > 128)  # white on the left
                assert pixels[0, 4, -1] == 255 - pixels[0, 4, 0]
                seen[picture, pictures.captions[row], mirrored] += 1
        ways = {0: 3, 1: 1, 2: 2}
        assert len(seen) == 6 * (1 + flip)
        for (picture, _, _), count in seen.items():
            assert count == pytest.approx(400 / 3 / ways[picture] / (1 + flip), rel=0.45)


def test_a_mirrored_table_is_what_methods_expect_of_a_table(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [(16, 16)] * 3)
    plain = load_pictures(folder, 8, tmp_path / "cache")
    mirrored = load_pictures(folder, 8, tmp_path / "cache", random_flip=True)
    table = mirrored.tables[0]
    assert len(table) == 6 and table.shape == (6, 3, 8, 8)
    assert mirrored.keys[0] != plain.keys[0], "what is computed from it is another table"
    both = table[np.array([1, 4])]
    assert np.array_equal(both[0][..., ::-1], both[1]) and not np.array_equal(both[0], both[1])
    assert np.array_equal(table[np.arange(3)], plain.tables[0])


def test_holding_out(tmp_path: Path) -> None:
    pictures = load_pictures(folder_of(tmp_path, [(16, 16)] * 4), 8, tmp_path / "cache")
    seen = np.concatenate([pictures.holding_out([1, 3]).rows(step, 2, 0) for step in range(4)])
    assert Counter(seen.tolist()) == {0: 4, 2: 4}
    with pytest.raises(DatasetError, match="all pictures are held out"):
        pictures.holding_out(range(4))


def test_what_sdxl_is_told(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [(40, 20), (20, 20)])
    squares = load_pictures(folder, 16, tmp_path / "cache")
    # 40 x 20 scaled by 0.8 is 32 x 16, of which 8 pixels at each end are cut off.
    assert squares.time_ids(np.array([0, 1])).tolist() == [[20, 40, 0, 8, 16, 16], [20, 20, 0, 0, 16, 16]]
    assert crop_of((20, 40), 16, 16) == (8, 0)
    pixels = squares.pixels(np.array([0]))
    assert pixels[0, 0, 5, 7] < 40 and pixels[0, 0, 5, 8] > 215, "black and white meet in the middle still"


def test_bad_pictures_are_left_out_up_to_a_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path, [(16, 16)] * 100)
    (tmp_path / "007.png").write_bytes(b"")
    for again in (False, True):  # decoded, and from the cache
        if again:
            monkeypatch.setattr(
                "t2i.dataset.tables.ProcessPoolExecutor", lambda: pytest.fail("decoded again")
            )
        pictures = load_pictures(folder, 8, tmp_path / "cache")
        assert len(pictures) == 99 and pictures.captions[7] == "c8"
        assert [path.name for path in pictures.left_out] == ["007.png"]
        assert pictures.pixels(np.array([7]))[0, 0, 0, 0] == pictures.tables[0][7, 0, 0, 0]
        assert pictures.notices()[1:] == [
            "1 pictures cannot be read and are left out:",
            f"picture {tmp_path / '007.png'} cannot be read: the file is empty",
        ]
    monkeypatch.undo()
    wide = load_pictures(folder, 16, tmp_path / "cache", BucketPlan(16, 8))
    assert len(wide) == 99
    whole = folder_of(tmp_path, [(16, 16)] * 100)
    assert load_pictures(whole, 8, tmp_path / "cache").key != pictures.key
    for name in ("008.png", "009.png"):
        (tmp_path / name).write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"more than 1 of 100 pictures cannot be used.*008\.png.*009\.png"):
        load_pictures(folder, 8, tmp_path / "cache")
    with pytest.raises(DatasetError, match="more than 1 of 100"):
        load_pictures(folder, 16, tmp_path / "cache", BucketPlan(16, 8))
    assert len(load_pictures(folder, 8, tmp_path / "cache", max_bad=0.02)) == 98
    with pytest.raises(DatasetError, match=r"008\.png cannot be read"):
        load_pictures(folder, 8, tmp_path / "cache", max_bad=0)


def test_another_background_is_another_table(tmp_path: Path) -> None:
    Image.new("RGBA", (16, 16), (255, 0, 0, 0)).save(tmp_path / "000.png")
    folder = ImageFolder(tmp_path, (Example(tmp_path / "000.png", ""),), "none")
    white = load_pictures(folder, 8, tmp_path / "cache")
    green = load_pictures(folder, 8, tmp_path / "cache", background="#00ff00")
    assert white.tables[0].min() == 255
    assert green.tables[0][0, :, 3, 3].tolist() == [0, 255, 0] and green.key != white.key
