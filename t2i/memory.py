"""Running out of memory: what counts as that, and what is given up, a step at a time, so that pictures fit.

While the UNet runs: half the batch, again and again, then CPU offload. While the autoencoder decodes: one
picture after the other (slicing), then CPU offload, then tiles. Seeds never change, and a picture but for
rounding neither, except by tiles: each is normalised by itself, so colours differ from tile to tile. They
come last. What a person has set is not given up: not a batch size, and with `deterministic` no tiles.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from t2i import latents
from t2i.config import GenerateConfig
from t2i.errors import OutOfMemory

if TYPE_CHECKING:
    from t2i.weights import LoadedModel

SMALLER_BATCH, SLICING, OFFLOAD, TILING = "smaller batch", "vae slicing", "cpu offload", "vae tiling"
STEPS = (SMALLER_BATCH, SLICING, OFFLOAD, TILING)
SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")

Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, torch, its CPU allocator, cuDNN or cuBLAS means that memory has run out."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError, OutOfMemory)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)


def can_offload(device: torch.device) -> bool:
    """Whether networks can wait elsewhere than where they compute."""
    return device.type != "cpu"


@dataclass
class Thrift:
    """What has been given up for pictures of one size.

    Attributes:
        batch_size: Pictures that may be denoised together; None: no limit is known.
        steps: Of `STEPS`.
    """

    batch_size: int | None = None
    steps: set[str] = field(default_factory=set)


class Room:
    """The memory that a loaded model has, and what was learnt of it, for the next run with this model."""

    def __init__(self, model: LoadedModel, offloading: bool = False) -> None:
        self.model = model
        self.device: torch.device = model.unet.device
        self.offloading = False
        self._thrift: dict[tuple[int | None, int | None], Thrift] = {}
        if offloading and can_offload(self.device):
            self.offload()

    @property
    def _networks(self) -> tuple[Any, ...]:
        return (*self.model.denoising, self.model.vae, *self.model.family.parts.text_encoders)

    def thrift(self, config: GenerateConfig) -> Thrift:
        """What has been given up for pictures of the size of a settled config."""
        return self._thrift.setdefault((config.width, config.height), Thrift())

    def offload(self) -> None:
        """Let the networks wait on the CPU from now on, each on the device only while it computes."""
        for network in self._networks:
            network.to("cpu")
        self.offloading = True

    def restore(self) -> None:
        """Bring all networks back to the device."""
        if self.offloading:
            for network in self._networks:
                network.to(self.device)
        self.offloading = False

    @contextmanager
    def computing(self, *networks: Any) -> Iterator[None]:
        """Have some of the networks on the device for a while."""
        waiting = networks if self.offloading else ()
        try:
            for network in waiting:
                network.to(self.device)
            yield
        finally:
            for network in waiting:
                network.to("cpu")

    def free(self) -> None:
        """Give back what a failed attempt held."""
        gc.collect()
        empty_cache = getattr(getattr(torch, self.device.type, None), "empty_cache", None)
        if empty_cache is not None:
            empty_cache()


@contextmanager
def saving(vae: Any, steps: set[str]) -> Iterator[None]:
    """Decode as some of `STEPS` say for a while."""
    before = vae.use_slicing, vae.use_tiling
    vae.use_slicing, vae.use_tiling = before[0] or SLICING in steps, before[1] or TILING in steps
    try:
        yield
    finally:
        vae.use_slicing, vae.use_tiling = before


class Fit:
    """Makes the pictures of one run fit: work that runs out of memory gives something up and is tried again.

    Args:
        room: Of the model.
        config: Of the run, settled.
        wanted: Pictures to denoise together.
        warn: Called with a line for each thing that is given up.
    """

    def __init__(self, room: Room, config: GenerateConfig, wanted: int, warn: Callable[[str], None]) -> None:
        self.room, self.config, self.wanted, self.warn = room, config, wanted, warn
        self.thrift = room.thrift(config)
        self._fixed = config.deterministic or config.batch_size is not None
        assert config.width and config.height
        side = max(latents.latent_size(room.model.vae, config.width, config.height))
        self._may_tile = side > room.model.vae.tile_latent_min_size and not config.deterministic

    @property
    def batch_size(self) -> int:
        """Pictures to denoise together now."""
        limit = None if self._fixed else self.thrift.batch_size
        return self.wanted if limit is None else min(limit, self.wanted)

    @property
    def steps(self) -> set[str]:
        """What has been given up for the pictures that are drawn now."""
        smaller = {SMALLER_BATCH} if self.batch_size < self.wanted else set()
        allowed = self.thrift.steps - (set() if self._may_tile else {TILING})
        return allowed | smaller | ({OFFLOAD} if self.room.offloading else set())

    def attempt(self, work: Callable[[], Result], pictures: int, decoding: bool = False) -> Result | None:
        """`work()`; None where memory ran out and something has been given up, so that it may be tried again.

        Args:
            work: What to do.
            pictures: How many it denoises or decodes together.
            decoding: Whether it decodes.

        Raises:
            OutOfMemory: There is nothing left to be given up.
        """
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = error.with_traceback(None)  # its frames hold the tensors
        given_up = self._slice(pictures) if decoding else self._halve(pictures)
        given_up = given_up or self._offload() or (self._tile() if decoding else None)
        self.room.free()
        if given_up is None:
            fewer = f"a --batch-size below {pictures}" if pictures > 1 and not decoding else ""
            size = f"{self.config.width}x{self.config.height}"
            hint = f"try {fewer or 'a smaller --width and --height'}"
            raise OutOfMemory(f"not enough memory for {size}", hint) from reason
        self.warn(f"out of memory; going on with {given_up}")
        return None

    def _halve(self, pictures: int) -> str | None:
        """Take this step, if it can be taken; returns it in words."""
        if pictures == 1 or self._fixed:
            return None
        self.thrift.batch_size = -(-pictures // 2)
        return f"batches of {self.thrift.batch_size}"

    def _slice(self, pictures: int) -> str | None:
        if pictures == 1 or SLICING in self.thrift.steps:
            return None
        self.thrift.steps.add(SLICING)
        return "the pictures of a batch decoded one after the other"

    def _offload(self) -> str | None:
        if self.room.offloading or not can_offload(self.room.device):
            return None
        self.room.offload()
        return "each network on the CPU while another computes"

    def _tile(self) -> str | None:
        if not self._may_tile or TILING in self.thrift.steps:
            return None
        self.thrift.steps.add(TILING)
        return "pictures decoded in tiles, so that colours may differ from tile to tile"
