from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from norma.base import platform
from norma.base.platform import Fact, describe, set_cache_limits, tune_allocator

ALLOCATE = """
import resource, sys
from norma.base.platform import tune_allocator
said = tune_allocator()
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3): bytearray(64 * 2**20)
before = faults()
for _ in range(10): bytearray(64 * 2**20)
print(faults() - before)
print(said)
"""


def _child(code: str, **extra: str) -> list[str]:
    environment = {**{k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}, "PYTHONPATH": "src", **extra}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout.splitlines()


def test_importing_loads_no_torch() -> None:
    code = "import sys; from norma.base import platform as p; p.set_cache_limits(); p.tune_allocator(); p.describe(with_torch=False); "
    assert _child(code + "print('torch' in sys.modules)") == ["False"]


@pytest.mark.skipif(not platform.libc().startswith("glibc"), reason="the allocator setting is glibc's")
def test_tuned_glibc_keeps_pages_and_the_switch_turns_it_off() -> None:
    """Counted by the kernel: without the setting every fresh 64 MiB costs page faults, with it almost none."""
    tuned, said = _child(ALLOCATE)
    assert "keeps freed memory" in said
    untouched, why = _child(ALLOCATE, NORMA_ALLOCATOR="off")
    assert "NORMA_ALLOCATOR=off" in why
    # glibc raises its own mmap threshold to 32 MiB at most, so 64 MiB blocks are always mapped afresh. With transparent
    # huge pages a fault may cover 2 MiB: 10 blocks are at least 320 faults.
    assert int(untouched) >= 300
    assert int(tuned) < int(untouched) / 5


def test_other_allocators_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NORMA_ALLOCATOR", raising=False)
    monkeypatch.setattr(platform, "_read", lambda path: "7f00 r-xp /usr/lib/libtcmalloc_minimal.so.4\n")
    assert tune_allocator().startswith("left as it is (tcmalloc is loaded")


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NORMA_ALLOCATOR", raising=False)
    monkeypatch.setattr(platform, "other_allocator", lambda: None)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert tune_allocator().startswith("left as it is (the setting is glibc's")


def test_cache_limits_keep_what_the_user_set() -> None:
    code = (
        "import os; from norma.base.platform import set_cache_limits as s; s(); "
        "print(os.environ['LRU_CACHE_CAPACITY'], os.environ['ONEDNN_PRIMITIVE_CACHE_CAPACITY'])"
    )
    assert _child(code, LRU_CACHE_CAPACITY="7", ONEDNN_PRIMITIVE_CACHE_CAPACITY="64") == ["7 64"]


def test_cache_limits_say_when_they_come_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", sys)
    assert "no effect" in set_cache_limits()


@pytest.mark.parametrize(
    ("text", "cores"), [("200000 100000", 2.0), ("50000 100000", 0.5), ("max 100000", None), ("", None), ("1 0", None)]
)
def test_a_containers_cpu_quota(text: str, cores: float | None) -> None:
    assert platform._cpu_quota(text) == cores


@pytest.mark.parametrize(
    ("said", "together", "wanted"),
    [("1", 1, 1), ("3", 1, 3), ("3", 2, 3), ("4,2", 1, 4), (None, 1, 8), (None, 2, 4), (None, 16, 1), ("1", 2, 4), ("x", 1, 8)],
)
def test_threads_are_what_openmp_is_told_or_a_share_of_the_cores(
    said: str | None, together: int, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among several processes 1 is what torchrun sets by itself."""
    monkeypatch.setattr(platform, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert platform.threads(together) == wanted


def test_cores_and_memory_obey_a_containers_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/sys/fs/cgroup/cpu.max": "50000 100000",
        "/sys/fs/cgroup/memory.max": str(2 * 2**30),
        "/sys/fs/cgroup/memory.current": str(2**30),
        "/proc/meminfo": "MemTotal:       16777216 kB\nMemFree: 1 kB\nMemAvailable:    8388608 kB\n",
    }
    monkeypatch.setattr(platform, "_read", lambda path: files.get(path, ""))
    assert platform.cores() == 1
    assert platform.memory() == (2 * 2**30, 2**30)
    files["/sys/fs/cgroup/memory.max"] = "max"
    assert platform.memory() == (16 * 2**30, 8 * 2**30)


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 avx512_bf16\n", True),
        ("flags : fpu avx2 amx_bf16 amx_tile\n", True),
        ("flags : fpu avx2 avx512f\n", False),
        ("Features : fp asimd bf16\n", True),
        ("", False),
    ],
)
def test_bf16_only_where_the_cpu_multiplies_it(monkeypatch: pytest.MonkeyPatch, cpuinfo: str, expected: bool) -> None:
    platform.cpu_flags.cache_clear()
    monkeypatch.setattr(platform, "_read", lambda path: cpuinfo)
    assert platform.bf16_on_cpu() is expected
    platform.cpu_flags.cache_clear()


def test_the_working_format_follows_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for has, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(platform, "bf16_on_cpu", lambda has=has: has)
        assert platform.working_dtype() is expected
    assert platform.working_dtype("mps") is torch.float32


def test_sizes_in_words() -> None:
    assert [platform.size(n) for n in (None, 0, 1023, 1024, 25 * 2**30, 5 * 2**50)] == [
        "unknown", "0 B", "1023 B", "1.0 KiB", "25.0 GiB", "5120.0 TiB",
    ]  # fmt: skip


def test_no_compiler_means_eager(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    fact = next(f for f in describe(with_torch=False) if f.name == "compiler")
    assert (fact.found, fact.chosen) == ("no C++ compiler", "eager")


def test_every_fact_is_said_in_full() -> None:
    facts = describe(Path("does/not/exist"))
    assert [f.name for f in facts] == [
        "system", "cores", "memory", "disk", "allocator", "shape caches", "compiler", "torch", "accelerator", "number format",
    ]  # fmt: skip
    assert all(isinstance(f, Fact) and all(f.row().values()) for f in facts)
