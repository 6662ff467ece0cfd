"""Where the numbers are computed and in which format: device, dtype, matmul precision, threads, exactness.

`choose_runtime` decides, `apply_runtime` sets the process-wide switches, `prepare_unet` sets those that
live in the network. The choice is kept in every picture's recipe (`Runtime.describe`).
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from t2i.errors import UsageError

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
DTYPE_NAMES = {value: name for name, value in DTYPES.items()}
EXACT_FAMILIES = ("pocket",)
"""Small models that stay in fp32 on a CPU: bf16 gains little there and changes with the batch shape."""

DETERMINISTIC_THREADS = 1
"""What a picture must not depend on is fixed at what every machine has: one thread. (More would be cut down
silently by a container's limit or by the libraries themselves, and split sums elsewhere.)"""

ATTENTION_KINDS = ("sdpa", "explicit", "upcast")

CPU_ATTENTION: dict[str, str] = {}
"""Family → attention on a CPU in fp32, where another than "sdpa" was measured to be faster."""


@dataclass(frozen=True)
class Runtime:
    """How this process computes.

    Attributes:
        device: Where the networks are.
        dtype: Number format of the weights.
        matmul_precision: Argument of `torch.set_float32_matmul_precision`.
        threads: Threads inside one operation (CPU).
        channels_last: Memory layout of the convolutions.
        attention: "sdpa" (torch's own), "upcast" (sdpa in fp32 inside bf16), "explicit" (matmul, softmax).
        deterministic: Only kernels that give equal bits every time.
        reason: Why these, one line for `--verbose`.
    """

    device: torch.device
    dtype: torch.dtype
    matmul_precision: str
    threads: int
    channels_last: bool
    attention: str
    deterministic: bool
    reason: str

    def describe(self) -> dict[str, Any]:
        """Plain values for the recipe; nothing that names a machine or a user."""
        return {
            "device": self.device.type,
            "device_name": device_name(self.device),
            "dtype": DTYPE_NAMES[self.dtype],
            "threads": self.threads,
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "matmul_precision": self.matmul_precision,
            "channels_last": self.channels_last,
            "attention": self.attention,
            "deterministic": self.deterministic,
        }


def pick_device(name: str = "auto") -> torch.device:
    """ "auto" = cuda, then mps, then xpu, then cpu; else the device of that name.

    Raises:
        UsageError: No such device here.
    """
    if name == "auto":
        return next(torch.device(kind) for kind in ("cuda", "mps", "xpu", "cpu") if _device_count(kind))
    try:
        device = torch.device(name)
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"--device {name}: not a device", "use auto, cuda, cuda:1, mps, xpu or cpu"
        ) from error
    count = _device_count(device.type)
    if count == 0 or (device.index or 0) >= count:
        here = [kind for kind in ("cuda", "mps", "xpu", "cpu") if _device_count(kind)]
        raise UsageError(f"--device {name}: not available here", f"available: {', '.join(here)}")
    return device


def pick_dtype(name: str, device: torch.device, family: str = "") -> torch.dtype:
    """The number format of the weights.

    "auto" is fp16 on a GPU, bf16 on a CPU with bf16 instructions, else fp32; small models
    (`EXACT_FAMILIES`) stay in fp32 on a CPU.

    Raises:
        UsageError: An unknown format.
    """
    if name == "auto":
        if device.type != "cpu":
            return torch.bfloat16 if device.type == "xpu" else torch.float16
        return torch.bfloat16 if family not in EXACT_FAMILIES and has_bf16_cpu() else torch.float32
    if name not in DTYPES:
        raise UsageError(f"--dtype {name}: not one of auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def choose_runtime(
    device: str = "auto",
    dtype: str = "auto",
    family: str = "",
    deterministic: bool = False,
    threads: int | None = None,
) -> Runtime:
    """Decide how to compute on this machine.

    Args:
        device: As `pick_device`.
        dtype: As `pick_dtype`.
        family: Name of the model family; small models get another choice.
        deterministic: Ask for equal bits every time, which also fixes the threads.
        threads: Threads inside one operation, None = what this machine offers.
    """
    where = pick_device(device)
    number_format = pick_dtype(dtype, where, family)
    if threads is not None:
        count = threads
    else:
        count = DETERMINISTIC_THREADS if deterministic else usable_threads()
    if where.type != "cpu":
        precision = "highest" if deterministic or number_format == torch.float32 else "high"
        reason = f"{where.type}, {DTYPE_NAMES[number_format]} weights"
        return Runtime(
            where, number_format, precision, count, where.type == "cuda", "sdpa", deterministic, reason
        )
    if number_format == torch.bfloat16:
        # Weights in bf16, attention in fp32 through oneDNN: the fastest plain torch found on such CPUs.
        reason = "cpu, bf16 weights, fp32 attention, matmul precision medium"
        return Runtime(where, number_format, "medium", count, True, "upcast", deterministic, reason)
    if number_format == torch.float16:
        reason = "cpu, fp16 weights, no faster here than fp32"
        return Runtime(where, number_format, "highest", count, False, "sdpa", deterministic, reason)
    if not has_bf16_cpu():
        precision, why = "highest", "no bf16 instructions"
    elif has_amx():
        precision, why = "highest", "with AMX medium would really compute in bf16"
    else:
        precision, why = "medium", "on this CPU medium keeps fp32 accuracy and is faster"
    attention = CPU_ATTENTION.get(family, "sdpa")
    reason = f"cpu, fp32, matmul precision {precision} ({why})"
    return Runtime(where, number_format, precision, count, False, attention, deterministic, reason)


def apply_runtime(runtime: Runtime) -> None:
    """Set the switches that torch keeps for the whole process."""
    torch.set_num_threads(runtime.threads)
    torch.set_float32_matmul_precision(runtime.matmul_precision)
    torch.use_deterministic_algorithms(runtime.deterministic)
    torch.backends.cudnn.deterministic = runtime.deterministic
    torch.backends.cudnn.benchmark = False  # a benchmarked choice may differ from run to run


def prepare_unet(unet: Any, runtime: Runtime) -> None:
    """Set memory layout and attention of a UNet for `runtime`, in place."""
    if runtime.channels_last:
        unet.to(memory_format=torch.channels_last)
    set_attention(unet, runtime.attention)


def set_attention(unet: Any, kind: str) -> None:
    """Choose how a UNet computes attention.

    Args:
        unet: A UNet2DConditionModel.
        kind: "sdpa", "upcast" or "explicit", as in `Runtime.attention`.
    """
    from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

    if kind not in ATTENTION_KINDS:
        raise ValueError(f"attention {kind!r}: not one of {', '.join(ATTENTION_KINDS)}")
    processors = {"sdpa": AttnProcessor2_0, "explicit": AttnProcessor, "upcast": UpcastAttention}
    unet.set_attn_processor(processors[kind]())


class UpcastAttention:
    """Attention of a transformer block in fp32 inside a bf16 network.

    oneDNN's fp32 kernels beat the bf16 path of torch's attention on CPUs with bf16 instructions, and the
    softmax is more exact. Any other kind of attention goes to Diffusers' own processor.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Attend from `hidden_states` (B, N, D) to `encoder_hidden_states` (B, L, E), or to itself.

        Args:
            attn: The Diffusers `Attention` module that holds the projections.
            hidden_states: (B, N, D).
            encoder_hidden_states: (B, L, E), None = self-attention.
            attention_mask: Given only by callers that Diffusers' own processor serves.
            temb: As `attention_mask`.

        Returns:
            (B, N, D).
        """
        unusual = (attn.spatial_norm, attn.group_norm, attn.norm_q, attn.norm_k, attn.norm_cross)
        if hidden_states.ndim != 3 or attention_mask is not None or any(unusual):
            from diffusers.models.attention_processor import AttnProcessor2_0

            return AttnProcessor2_0()(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        batch, places, _ = hidden_states.shape
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states

        def heads(projected: Tensor) -> Tensor:  # (B, N, D) → (B, heads, N, D / heads), fp32
            return projected.float().unflatten(2, (attn.heads, -1)).transpose(1, 2)

        attended = torch.nn.functional.scaled_dot_product_attention(
            heads(attn.to_q(hidden_states)), heads(attn.to_k(source)), heads(attn.to_v(source))
        )
        joined = attended.transpose(1, 2).reshape(batch, places, -1).to(hidden_states.dtype)
        output = attn.to_out[1](attn.to_out[0](joined))
        if attn.residual_connection:
            output = output + hidden_states
        return output / attn.rescale_output_factor


def trains_in_bf16(mixed_precision: str, device: torch.device) -> bool:
    """Whether a training computes in bf16: where asked, or on "auto" where that is faster than fp32.

    Faster are GPUs that have it and CPUs with AVX-512 BF16 or AMX.
    """
    if mixed_precision != "auto":
        return mixed_precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and has_bf16_cpu()


def has_bf16_cpu() -> bool:
    """Whether oneDNN has bf16 kernels for this CPU."""
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # a torch built without oneDNN
        return False


def has_amx() -> bool:
    """Whether the CPU has AMX tiles; there matmul precision "medium" really computes in bf16."""
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def usable_threads(
    cpuinfo: Path = Path("/proc/cpuinfo"), quota: Path = Path("/sys/fs/cgroup/cpu.max")
) -> int:
    """Threads worth using: physical cores this process may run on, less a container's quota.

    `OMP_NUM_THREADS`, if set, decides.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    count = _physical_cores(cpuinfo, allowed) or len(allowed)
    try:
        limit, period = quota.read_text().split()
        if limit != "max":
            count = min(count, -(-int(limit) // int(period)))  # a part of a core is used as a whole one
    except (OSError, ValueError):
        pass
    return max(1, count)


def device_name(device: torch.device) -> str:
    """The processor's own name, such as "NVIDIA H100"; for a CPU the architecture only."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "xpu":
        return torch.xpu.get_device_name(device)
    return platform.machine()


def _physical_cores(cpuinfo: Path, allowed: set[int]) -> int:
    """Distinct (package, core) pairs among the allowed processors, 0 if the file does not say."""
    try:
        blocks = cpuinfo.read_text().split("\n\n")
    except OSError:
        return 0
    cores = set()
    for block in blocks:
        pairs = (line.partition(":") for line in block.splitlines())
        values = {key.strip(): value.strip() for key, _, value in pairs}
        if "core id" in values and int(values.get("processor", -1)) in allowed:
            cores.add((values.get("physical id"), values["core id"]))
    return len(cores)


def _device_count(kind: str) -> int:
    """How many devices of a kind torch can use here."""
    if kind == "cpu":
        return 1
    if kind == "cuda":
        return torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "mps":
        return 1 if torch.backends.mps.is_available() else 0
    if kind == "xpu":
        return torch.xpu.device_count() if torch.xpu.is_available() else 0
    return 0
