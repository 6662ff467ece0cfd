"""What one worker does: keep a model in memory, draw what it is told, hand back the bytes of picture files.

Each message is JSON, the first one `Opening`, every other one `Order`. An answer is one line of JSON and,
behind it, the files whose sizes it names:

    {"t2i": "0.1.0", "where": "process 4711 on a"}             or {"refused": "--device cuda: not available"}
    {"outcomes": [{"index": 3, "seconds": 0.2, "size": 5120, "remarks": {}},
                  {"index": 4, "seconds": 0.2, "error": "…", "exit_code": 4}], "told": [], "warned": []}
"""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

from t2i import environment
from t2i.batch.drawing import Limits, ModelInMemory, describe, draw_group, encode, remarks
from t2i.batch.plan import BatchJob, adapters_identity, identity
from t2i.config import GenerateConfig
from t2i.durable import fault_point
from t2i.errors import ModelError, T2IError
from t2i.version import __version__


@dataclass(frozen=True)
class Opening:
    """The first message.

    Attributes:
        device: Where to draw, as `--device`.
        threads: Threads inside one operation.
        folder: What relative paths of models are relative to.
        offline: Never ask the network.
        quiet: Keep the libraries' own lines out of stderr.
    """

    device: str
    threads: int
    folder: str
    offline: bool
    quiet: bool


DIFFERING = ("negative_prompt", "guidance_scale")  # settings that `plan.in_common` leaves out


@dataclass(frozen=True)
class Order:
    """Pictures of one group of `group_jobs`.

    Attributes:
        config: `GenerateConfig.to_dict()` of the first, settled, without prompt and seed.
        model: What `t2i.batch.plan.identity` says where the batch was planned.
        metadata: As `images.save` has it.
        pictures: Index, prompt, seed, file name, what tells the adapters of each from others, and what may
            differ from `config`: negative prompt and guidance scale.
    """

    config: dict[str, Any]
    model: str
    metadata: str
    pictures: list[dict[str, Any]]

    @classmethod
    def of(cls, jobs: Sequence[BatchJob], model: str, metadata: str) -> Order:
        """The order for pictures that are planned and share a config."""
        names = ("index", "prompt", "seed", "file", "adapters")
        pictures = [
            {name: getattr(job, name) for name in names}
            | {name: getattr(job.config, name) for name in DIFFERING}
            for job in jobs
        ]
        return cls(jobs[0].config.to_dict(), model, metadata, pictures)

    @property
    def jobs(self) -> list[BatchJob]:
        """What `of` was made from, as far as drawing needs it."""
        common = GenerateConfig.from_dict(self.config)
        return [
            BatchJob("", row["index"], 0, "", row["prompt"], row["seed"],
                     common.replace(**{name: row[name] for name in DIFFERING}), row["file"], False, None)
            for row in self.pictures
        ]  # fmt: skip


def dumps(message: Opening | Order) -> str:
    """A message as JSON."""
    return json.dumps(asdict(message))


def read_answer(answer: bytes) -> tuple[dict[str, Any], dict[int, bytes]]:
    """The line of an answer, and index → file of the pictures that were made."""
    line, _, rest = answer.partition(b"\n")
    values = json.loads(line)
    files, start = {}, 0
    for outcome in values.get("outcomes", ()):
        if "size" in outcome:
            files[outcome["index"]] = rest[start : start + outcome["size"]]
            start += outcome["size"]
    return values, files


class Worker:
    """Answers one message after another."""

    def __init__(self) -> None:
        self.model: ModelInMemory | None = None
        self.checked: dict[str, str] = {}

    def answer(self, message: str) -> bytes:
        """Do what a message asks.

        Args:
            message: See the module.

        Returns:
            The answer; see the module.
        """
        values = json.loads(message)
        if self.model is None:
            return self._open(Opening(**values))
        return self._draw(Order(**values), self.model)

    def _open(self, opening: Opening) -> bytes:
        """Settle in: from here on the process belongs to t2i."""
        os.environ["OMP_NUM_THREADS"] = str(opening.threads)  # read when torch is imported
        with suppress(OSError):  # of another machine; its models are checked in any case
            os.chdir(opening.folder)
        environment.prepare(opening.offline, opening.quiet)
        values = {"t2i": __version__, "where": f"process {os.getpid()} on {platform.node()}"}
        with environment.collecting_later():
            import torch

            from t2i import devices, pipeline  # noqa: F401

        try:
            device = devices.pick_device(opening.device)
            if device.type != "cpu" and device.index is not None:  # what names no device is to mean this one
                torch.accelerator.set_device_index(device.index)
        except T2IError as error:
            values["refused"] = error.message
        if opening.quiet:
            environment.silence_loaded_libraries()
        self.model = ModelInMemory(opening.device)
        return json.dumps(values).encode()

    def _draw(self, order: Order, model: ModelInMemory) -> bytes:
        outcomes: list[dict[str, Any]] = []
        files: list[bytes] = []
        told: list[str] = []
        warned: list[str] = []
        try:
            self._check_model(order)
            drawn = draw_group(order.jobs, model, Limits(), told.append, warned.append)
        except T2IError as error:
            drawn = iter([(job, error, 0.0) for job in order.jobs])
        for job, outcome, seconds in drawn:
            encoded = encode(job, outcome, order.metadata)
            row: dict[str, Any] = {"index": job.index, "seconds": seconds}
            if isinstance(encoded, bytes):
                files.append(encoded)
                row |= {"size": len(encoded), "remarks": remarks(outcome, order.metadata)}
            else:
                code = encoded.exit_code if isinstance(encoded, T2IError) else T2IError.exit_code
                row |= {"error": describe(encoded), "exit_code": code}
            outcomes.append(row)
        fault_point("worker.before_answer")
        values = {"outcomes": outcomes, "told": told, "warned": warned}
        return b"".join([json.dumps(values).encode(), b"\n", *files])

    def _check_model(self, order: Order) -> None:
        """Refuse to draw with another model or LoRA of the same name, as if it were the one of the plan.

        Raises:
            ModelError: Then, or there is none here.
        """
        name = order.config["model"]
        if name not in self.checked:
            self.checked[name] = identity(name)
        if order.model != self.checked[name]:
            raise ModelError(f"the model {name} has other files on {platform.node()}")
        config = GenerateConfig.from_dict(order.config)
        for prompt, wanted in {row["prompt"]: row["adapters"] for row in order.pictures}.items():
            if wanted != adapters_identity(config, prompt):
                kinds = "a LoRA, textual inversion, ControlNet or control picture"
                raise ModelError(f"{kinds} has another content on {platform.node()}")


def serve(descriptor: int) -> None:
    """The life of a worker process.

    Args:
        descriptor: Of a connected socket; when its other end is closed, the process ends.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to all processes; the parent decides
        signal.signal(number, signal.SIG_IGN)
    worker, connection = Worker(), Connection(descriptor)
    with suppress(EOFError, ConnectionError):
        while True:
            message = connection.recv_bytes().decode()
            try:
                answer = worker.answer(message)
            except Exception as error:
                sys.exit(f"t2i worker: {describe(error)}")
            connection.send_bytes(answer)
