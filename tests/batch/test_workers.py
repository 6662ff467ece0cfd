"""Several workers draw one batch: the same pictures, each once, whoever dies meanwhile."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Result, Run, run_line

from t2i import images
from t2i.batch import plan_batch, read_records
from t2i.batch.workers import crews, sharing, worker
from t2i.batch.workers.worker import Opening, Order, Worker, dumps, read_answer
from t2i.config.batch import BatchConfig
from t2i.errors import UsageError
from t2i.promptfiles import PromptOptions, parse_prompt_file

PROMPTS = ("a dog", "a cat", "a red drum", "a blue trumpet", "a corgi on the left", "the pink dog")
Dies = Callable[[int, list[str]], bool]


class InThisProcess:
    """A crew whose workers answer in this process, one after the other, and die when they are told to.

    Attributes:
        dies: Asked with the number of a worker and the prompts that it is to draw (none: it is to start).
        drawn: The number of the worker and the prompts of each order, dead or not.
    """

    def __init__(self, devices: int, dies: Dies = lambda number, prompts: False) -> None:
        self.devices = ["cpu"] * devices
        self.dies = dies
        self.started = 0
        self.numbers: dict[Worker, int] = {}
        self.waiting: list[tuple[Worker, str]] = []
        self.drawn: list[tuple[int, list[str]]] = []

    def start(self, device: str) -> Worker:
        new = Worker()
        self.numbers[new], self.started = self.started, self.started + 1
        self.waiting.append((new, dumps(Opening(device, 1, os.getcwd(), True, True))))
        return new

    def send(self, to: Worker, message: str) -> None:
        self.waiting.append((to, message))

    def answers(self, seconds: float) -> list[tuple[Worker, bytes | str]]:
        who, message = self.waiting.pop(0)
        prompts = [row["prompt"] for row in json.loads(message).get("pictures", [])]
        if prompts:
            self.drawn.append((self.numbers[who], prompts))
        return [(who, "by order" if self.dies(self.numbers[who], prompts) else who.answer(message))]

    def end(self, who: Worker) -> None:
        self.waiting = [item for item in self.waiting if item[0] is not who]


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_pocket: Path
) -> Run:
    """Run `t2i batch` on the miniature of pocket into out/; with a `crew`, by that."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def run_here(*arguments: object, crew: InThisProcess | None = None, output: str = "out") -> Result:
        Path("p.txt").write_text("\n".join(PROMPTS) + "\n")
        fixed = ["-m", tiny_pocket, "--steps", 2, "--size", "32x32", "--run-seed", 3, "-o", output]
        if crew is None:
            return run_line(capsys, "batch", "p.txt", *fixed, *arguments)

        @contextmanager
        def opened(config: BatchConfig) -> Iterator[InThisProcess]:
            yield crew

        with monkeypatch.context() as patch:
            patch.setattr(crews, "_opened", opened)
            return run_line(capsys, "batch", "p.txt", *fixed, "--devices", "cpu", *arguments)

    return run_here


def pictures(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(folder).glob("0*.png"))}


def statuses(folder: str = "out") -> list[str]:
    """Of every line of the manifest."""
    return [json.loads(line)["status"] for line in Path(folder, "manifest.jsonl").read_text().splitlines()]


def test_one_or_two_workers_draw_the_same_pictures(run: Run) -> None:
    assert run(output="alone").code == 0
    one, two = InThisProcess(1), InThisProcess(2)
    assert run(crew=one, output="one").code == 0 == run(crew=two, output="two").code
    assert [len(prompts) for _, prompts in one.drawn] == [6], "what fits together is drawn together"
    assert sorted((number, len(prompts)) for number, prompts in two.drawn) == [(0, 3), (1, 3)]
    assert pictures("one") == pictures("alone")
    assert pictures("two").keys() == pictures("alone").keys()
    for name in pictures("two"):
        mine, theirs = (images.read_pixels(Path(folder, name)).astype(int) for folder in ("alone", "two"))
        assert np.abs(mine - theirs).max() <= 1 and (mine != theirs).mean() <= 0.001

    assert run("--deterministic", output="exact").code == 0
    assert run("--deterministic", crew=InThisProcess(2), output="shared").code == 0
    assert pictures("shared") == pictures("exact")
    assert run("--deterministic", crew=InThisProcess(2), output="exact").out == "", "all is done already"


def test_what_a_dying_worker_was_drawing_is_drawn_by_another(run: Run) -> None:
    assert run("--deterministic", output="alone").code == 0
    crew = InThisProcess(2, dies=lambda number, prompts: number == 0 and "a red drum" in prompts)
    result = run("--deterministic", crew=crew)
    assert result.code == 0 and pictures("out") == pictures("alone")
    assert statuses() == ["done"] * 6 and len(result.lines) == 6
    deaths = [line for line in result.err.splitlines() if "died" in line]
    assert deaths == [
        "t2i: the worker on cpu died: by order; what it was drawing is drawn again (1 of the pictures)"
    ]
    assert crew.started == 3, "it was replaced"


def test_a_real_worker_is_killed_before_it_answers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("--deterministic", output="alone").code == 0
    with monkeypatch.context() as patch:
        patch.setenv("T2I_FAULT", "worker.before_answer:5")
        result = run("--deterministic", "--devices", "cpu", "--batch-size", 1)
    assert result.code == 0 and pictures("out") == pictures("alone") and statuses() == ["done"] * 6
    assert result.err.count("what it was drawing is drawn again (1 of the pictures)") == 1, result.err


def test_a_picture_that_kills_every_worker_fails_alone(run: Run) -> None:
    crew = InThisProcess(2, dies=lambda number, prompts: "a red drum" in prompts)
    result = run("--batch-size", 3, crew=crew)
    assert result.code == 3 and sorted(statuses()) == ["done"] * 5 + ["failed"]
    (failed,) = [record for record in read_records(Path("out")).values() if record["status"] == "failed"]
    assert failed["prompt"] == "a red drum" and "each worker that drew it died: by order" in failed["error"]
    together = [prompts for _, prompts in crew.drawn if "a red drum" in prompts]
    assert [len(prompts) for prompts in together] == [3, 3, 1]


@pytest.mark.parametrize("at_start", [True, False])
def test_without_workers_it_ends(run: Run, at_start: bool) -> None:
    crew = InThisProcess(2, dies=lambda number, prompts: at_start or bool(prompts))
    result = run("--batch-size", 2, crew=crew)
    assert result.code == 4 and result.out == ""
    assert "error: no worker is left (by order); " in result.err and "goes on with the rest" in result.err
    assert ("did not start" in result.err) == at_start
    assert crew.started <= 2 + sharing.DEATHS_IN_A_ROW
    assert "6 missing" in Path("out/report.html").read_text()
    assert run(crew=InThisProcess(1)).code == 0


def test_a_worker_may_take_no_longer_than_that(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(InThisProcess):
        def answers(self, seconds: float) -> list[tuple[Worker, bytes | str]]:
            return []

    monkeypatch.setattr(sharing, "PATIENCE_S", 0.05)
    result = run("--batch-size", 1, crew=Silent(2))
    assert result.code == 4 and result.err.count("did not start: no answer for") == 2


def test_a_signal_ends_after_what_is_being_drawn(run: Run) -> None:
    def interrupt(number: int, prompts: list[str]) -> bool:
        if prompts and len(crew.drawn) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return False

    crew = InThisProcess(2, dies=interrupt)
    result = run("--batch-size", 1, crew=crew)
    assert result.code == 130 and len(result.lines) == len(crew.drawn) == 3  # two were out, one had come back
    assert len(run("--batch-size", 1, crew=InThisProcess(2)).lines) == 3


def test_failures_may_end_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> bytes:
        raise UsageError("no")

    monkeypatch.setattr(worker, "draw_group", fail)
    result = run("--batch-size", 1, "--max-failures", 2, "--json", crew=InThisProcess(2))
    assert result.code == 2 + 2
    assert (result.events[-1]["failed"], result.events[-1]["left"]) == (2, 4)
    assert {json.loads(line)["exit_code"] for line in Path("out/manifest.jsonl").open()} == {2}


def order_of(tiny_pocket: Path, model: str = "") -> Order:
    parsed = parse_prompt_file(
        b"a dog\n", "txt", options=PromptOptions({"model": str(tiny_pocket)}, run_seed=1)
    )
    (job,) = plan_batch(parsed.entries, {}, Path("nowhere"))
    return Order.of([job], model or "0" * 64, "full")


def test_a_worker_draws_with_no_other_model_of_the_name(
    tiny_pocket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one = Worker()
    one.answer(dumps(Opening("cpu", 1, str(tmp_path), True, True)))
    values, files = read_answer(one.answer(dumps(order_of(tiny_pocket))))
    assert files == {} and "has other files" in values["outcomes"][0]["error"]


def test_workers_that_cannot_serve_are_let_go(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(worker, "__version__", "0.0.0")
        assert "has t2i 0.0.0, here is" in run(crew=InThisProcess(1)).err
    crew = InThisProcess(1)
    crew.devices = ["cuda:77"]
    assert "did not start: --device cuda:77: not available here" in run(crew=crew).err


@pytest.mark.parametrize(
    "values",
    [
        {"devices": "cpu,"}, {"devices": ""}, {"devices": "all,cpu:x"}, {"ray_address": "auto"},
        {"insecure_cluster": True}, {"engine": "ray", "insecure_cluster": True}, {"engine": "threads"},
        {"engine": "ray", "devices": "cuda:1"},
    ],
)  # fmt: skip
def test_options_that_cannot_be(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        BatchConfig(**{"output": "out", **values})


def test_refused_before_anything_is_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = run("--devices", "cuda:77")
    assert missing.code == 2 and "cuda:77: not available here" in missing.err
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    without = run("--engine", "ray")
    assert without.code == 2 and 'hint: pip install "t2i[ray]"' in without.err
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.53.1")
    old = run("--engine", "ray")
    assert old.code == 2 and "ray 2.53.1 has known holes, 2.54 is needed" in old.err
    assert not Path("out").exists()


def test_a_line_with_a_device_of_its_own_is_refused(run: Run) -> None:
    result = run("--devices", "cpu", "--device", "cpu")
    assert result.code == 2 and "p.txt: --device cpu: --devices decides that" in result.err
    assert not Path("out").exists()
