"""The choice of device, number format and precision, and attention that computes the same thing."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_models import make_unet

from t2i import devices
from t2i.devices import (
    apply_runtime,
    choose_runtime,
    pick_device,
    pick_dtype,
    prepare_unet,
    set_attention,
    usable_threads,
)  # fmt: skip
from t2i.errors import UsageError

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch):
    """Pretend to be a machine with some devices and CPU features."""

    def pretend(*kinds, bf16=False, amx=False):
        monkeypatch.setattr(devices, "_device_count", lambda kind: kind == "cpu" or kinds.count(kind))
        monkeypatch.setattr(devices, "has_bf16_cpu", lambda: bf16)
        monkeypatch.setattr(devices, "has_amx", lambda: amx)
        monkeypatch.setattr(devices, "device_name", lambda device: "pretended")

    return pretend


@pytest.mark.parametrize(
    ("present", "chosen"),
    [
        ((), "cpu"),
        (("xpu",), "xpu"),
        (("xpu", "mps"), "mps"),
        (("mps", "cuda"), "cuda"),
        (("cuda", "cuda"), "cuda"),
    ],
)
def test_auto_prefers_cuda_then_mps_then_xpu_then_cpu(machine, present, chosen):
    machine(*present)
    assert pick_device("auto").type == chosen


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps", "nonsense", "", "cpu:x"])
def test_a_device_that_is_not_here_is_a_usage_error(machine, name):
    machine()
    with pytest.raises(UsageError) as caught:
        pick_device(name)
    assert caught.value.exit_code == 2 and "cpu" in caught.value.hint


def test_the_second_gpu_needs_two(machine):
    machine("cuda")
    with pytest.raises(UsageError, match="cuda:1"):
        pick_device("cuda:1")
    machine("cuda", "cuda")
    assert pick_device("cuda:1").index == 1


def test_fp16_on_a_cpu_is_only_by_request(machine):
    machine(bf16=True)
    assert pick_dtype("fp16", CPU) == torch.float16
    assert choose_runtime(dtype="fp16", family="sd1").matmul_precision == "highest"
    with pytest.raises(UsageError, match="not one of"):
        pick_dtype("fp8", CPU)


@pytest.mark.parametrize(
    ("bf16", "amx", "family", "dtype", "precision", "attention"),
    [
        (False, False, "sd1", torch.float32, "highest", "sdpa"),
        (True, False, "sd1", torch.bfloat16, "medium", "upcast"),
        (True, True, "sdxl", torch.bfloat16, "medium", "upcast"),
        (True, False, "pocket", torch.float32, "medium", None),
        (True, True, "pocket", torch.float32, "highest", None),
        (False, False, "pocket", torch.float32, "highest", None),
    ],
)
def test_the_cpu_recipe(machine, bf16, amx, family, dtype, precision, attention):
    machine(bf16=bf16, amx=amx)
    runtime = choose_runtime(family=family)
    assert (runtime.dtype, runtime.matmul_precision) == (dtype, precision)
    assert attention is None or runtime.attention == attention
    assert choose_runtime(dtype="fp32", family="sd1").dtype == torch.float32


def test_gpu_is_fp16(machine):
    machine("cuda")
    runtime = choose_runtime(family="pocket")
    assert (runtime.device.type, runtime.dtype, runtime.attention) == ("cuda", torch.float16, "sdpa")


def test_the_description_is_plain_json_without_names(machine):
    import getpass
    import socket

    machine(bf16=True)
    text = json.dumps(choose_runtime(family="pocket", threads=3).describe())
    told = json.loads(text)
    assert told["threads"] == 3 and told["dtype"] == "fp32" and told["cpu_capability"]
    assert socket.gethostname() not in text and f'"{getpass.getuser()}"' not in text


def test_apply_sets_and_unsets_the_switches():
    before = (torch.get_num_threads(), torch.get_float32_matmul_precision())
    try:
        apply_runtime(choose_runtime("cpu", "fp32", deterministic=True, threads=1))
        assert torch.get_num_threads() == 1 and torch.are_deterministic_algorithms_enabled()
        apply_runtime(choose_runtime("cpu", "fp32", threads=2))
        assert torch.get_num_threads() == 2 and not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])


def test_threads_are_physical_cores_within_affinity_and_quota(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    cpuinfo, quota = tmp_path / "cpuinfo", tmp_path / "cpu.max"
    blocks = [f"processor\t: {n}\nphysical id\t: 0\ncore id\t\t: {n // 2}\n" for n in range(16)]
    cpuinfo.write_text("\n".join(blocks))
    assert usable_threads(cpuinfo, quota) == 4  # eight processors allowed, two a core
    for text, expected in (("max 100000", 4), ("250000 100000", 3), ("50000 100000", 1), ("nonsense", 4)):
        quota.write_text(text)
        assert usable_threads(cpuinfo, quota) == expected
    assert usable_threads(tmp_path / "gone", tmp_path / "gone") == 8
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert usable_threads(cpuinfo, quota) == 5


@pytest.mark.parametrize("linear", [False, True])
def test_every_attention_computes_the_same(linear):
    unet = make_unet(3, use_linear_projection=linear)
    latents, embeds = torch.randn(2, 4, 8, 8), torch.randn(2, 7, 32)
    outputs = {}
    with torch.no_grad():
        for kind in ("sdpa", "explicit", "upcast"):
            set_attention(unet, kind)
            outputs[kind] = unet(latents, 500, embeds, return_dict=False)[0]
        for kind in ("explicit", "upcast"):
            torch.testing.assert_close(outputs[kind], outputs["sdpa"], rtol=1e-5, atol=1e-5)
        half = make_unet(3, use_linear_projection=linear).to(torch.bfloat16)
        set_attention(half, "upcast")
        output = half(latents.bfloat16(), 500, embeds.bfloat16(), return_dict=False)[0]
    assert output.dtype == torch.bfloat16
    assert (output.float() - outputs["sdpa"]).norm() < 0.03 * outputs["sdpa"].norm()
    with pytest.raises(ValueError, match="not one of"):
        set_attention(unet, "flash")


def test_medium_keeps_its_error_bound_where_it_is_chosen():
    """ "medium" is chosen only where it does not drop to bf16; if torch changes that, this fails."""
    runtime = choose_runtime("cpu", "fp32", "pocket")
    before = torch.get_float32_matmul_precision()
    torch.manual_seed(0)
    one, two = torch.randn(256, 320), torch.randn(320, 256)
    try:
        torch.set_float32_matmul_precision(runtime.matmul_precision)
        error = (one @ two).double() - one.double() @ two.double()
    finally:
        torch.set_float32_matmul_precision(before)
    assert float(error.norm() / (one.double() @ two.double()).norm()) < 5e-6


def test_prepare_unet_follows_the_runtime(machine):
    machine(bf16=True)
    unet = make_unet(1)
    prepare_unet(unet, choose_runtime(family="sd1"))
    assert unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert {type(value).__name__ for value in unet.attn_processors.values()} == {"UpcastAttention"}
