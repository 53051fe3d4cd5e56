"""What this machine has, and what Norma makes of it.

    process start ─→ set_cache_limits()   environment variables that torch reads once, when it is imported
                  ─→ tune_allocator()     glibc's malloc keeps large blocks instead of handing them back to the kernel
    norma doctor  ─→ describe()           a list of facts: what was found, what was chosen, and why

Importing this module loads no torch, and neither do the first two calls. ``torch_facts`` imports it when asked.

Why the allocator: a training step on CPU makes and frees tensors of many megabytes. By default glibc maps each from the
kernel and unmaps it again, and every fresh 4 KiB page costs more than a microsecond; keeping them took a quarter to a
third off a step. Why the caches: oneDNN keeps one primitive per shape ever seen, without a useful bound, so that texts
of varying length grow memory until the machine is full.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import sys
import sysconfig
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from norma.base.errors import NormaError

if TYPE_CHECKING:
    import torch

# glibc's <malloc.h>
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_TRIM_NEVER = 2**31 - 1  # bytes; mallopt takes a C int
_TOP_PAD = 256 * 2**20  # bytes taken from the kernel at a time
_CACHE_LIMITS = {"LRU_CACHE_CAPACITY": "64", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64"}
_CUBLAS = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # with it matrix products on a GPU are the same from run to run
_OTHER_ALLOCATORS = ("tcmalloc", "jemalloc", "mimalloc", "hoard", "snmalloc")

ALLOCATOR_SWITCH, DEVICE_SWITCH = "NORMA_ALLOCATOR", "NORMA_DEVICE"
_state = {"allocator": "not set up in this process"}


@dataclass(frozen=True)
class Fact:
    """One line of ``norma doctor``: what was found, what Norma makes of it, and why."""

    name: str
    found: str
    chosen: str
    why: str

    def row(self) -> dict[str, str]:
        return asdict(self)


def set_cache_limits() -> str:
    """Bound oneDNN's and torch's shape caches through the environment; a value the user set stays. Says what was done."""
    if "torch" in sys.modules:
        return "torch was imported before the cache limits could be set; they have no effect in this process"
    for name, value in (_CACHE_LIMITS | _CUBLAS).items():
        os.environ.setdefault(name, value)
    return ", ".join(f"{name}={os.environ[name]}" for name in _CACHE_LIMITS)


def tune_allocator() -> str:
    """Tell glibc's malloc to keep freed memory for the next step; elsewhere nothing is done. Says what was done.

    Works before and after torch is imported. ``NORMA_ALLOCATOR=off`` leaves the allocator alone.
    """
    _state["allocator"] = _tune_allocator()
    return _state["allocator"]


def _tune_allocator() -> str:
    if os.environ.get(ALLOCATOR_SWITCH, "").strip().lower() in ("off", "0", "no", "false"):
        return f"left as it is ({ALLOCATOR_SWITCH}=off)"
    other = other_allocator()
    if other:
        return f"left as it is ({other} is loaded, which keeps freed memory itself)"
    if not sys.platform.startswith("linux"):
        return f"left as it is (the setting is glibc's; this is {platform.system() or sys.platform})"
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return "left as it is (the C library is not glibc)"
    libc.mallopt.argtypes, libc.mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    wanted = ((_M_MMAP_MAX, 0, "M_MMAP_MAX"), (_M_TRIM_THRESHOLD, _TRIM_NEVER, "M_TRIM_THRESHOLD"), (_M_TOP_PAD, _TOP_PAD, "M_TOP_PAD"))
    refused = [name for option, value, name in wanted if libc.mallopt(option, value) != 1]
    if refused:
        return f"glibc refused {', '.join(refused)}; the rest is set"
    return "glibc malloc keeps freed memory (M_MMAP_MAX=0, M_TRIM_THRESHOLD=2 GiB, M_TOP_PAD=256 MiB)"


def other_allocator() -> str | None:
    """The name of another malloc loaded into this process, such as tcmalloc, or None."""
    maps = _read("/proc/self/maps") or os.environ.get("LD_PRELOAD", "") + os.environ.get("DYLD_INSERT_LIBRARIES", "")
    return next((name for name in _OTHER_ALLOCATORS if f"lib{name}" in maps), None)


def cores() -> int:
    """Cores this process may use: the affinity mask, cut by a container's CPU quota; at least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota(_read("/sys/fs/cgroup/cpu.max"))
    return max(1, min(count, int(quota))) if quota else max(1, count)


def threads(together: int = 1) -> int:
    """Threads for one of ``together`` processes on this machine: what OMP_NUM_THREADS says, else its share of the cores.

    torchrun sets that variable to 1 by itself where it starts several processes, so among several a 1 is nobody's wish.
    """
    said = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # "4,2" is for regions within regions
    asked = int(said) if said.isdecimal() else 0
    return asked if asked > (1 if together > 1 else 0) else max(1, cores() // together)


def _cpu_quota(text: str) -> float | None:
    """Cores from cgroup v2's ``cpu.max`` ("200000 100000" is 2.0; "max 100000" is no limit)."""
    parts = text.split()
    return int(parts[0]) / int(parts[1]) if len(parts) == 2 and parts[0].isdigit() and parts[1].isdigit() and int(parts[1]) else None


@lru_cache(maxsize=1)
def cpu_flags() -> frozenset[str]:
    """The CPU's feature flags as Linux names them (``avx512_bf16``, ``amx_bf16``, on Arm ``bf16``); empty where unknown."""
    for line in _read("/proc/cpuinfo").splitlines():
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(flags.split())
    return frozenset()


def bf16_on_cpu() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; emulated, it is slower than float32."""
    return bool(cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"})


def working_device() -> str:
    """Where models compute: what ``NORMA_DEVICE`` says (cpu, cuda, cuda:1), else a CUDA device where there is one, else the CPU.

    Imports torch. Raises NormaError for a device that this machine, or this build of torch, does not have.
    """
    import torch

    said = os.environ.get(DEVICE_SWITCH, "").strip().lower()
    if not said:
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = said.partition(":")
    there = kind == "cpu" or (kind == "cuda" and torch.cuda.is_available() and number in ("", *map(str, range(torch.cuda.device_count()))))
    if not there:
        raise NormaError(f"there is no device '{said}' here", where=DEVICE_SWITCH, mend="norma doctor says what there is")
    return said


def working_dtype(device: str = "cpu") -> torch.dtype:
    """The number format to compute in: bf16 where the device multiplies it in hardware, else fp32. Imports torch."""
    import torch

    if device.startswith("cuda"):
        hardware = bool(torch.cuda.is_bf16_supported(including_emulation=False))
    else:
        hardware = device == "cpu" and bf16_on_cpu()
    return torch.bfloat16 if hardware else torch.float32


def memory() -> tuple[int | None, int | None]:
    """(total, available) bytes of memory for this process, a container's limit included; None where unknown."""
    lines = (line.replace(":", " ").split() for line in _read("/proc/meminfo").splitlines())
    table = {parts[0]: int(parts[1]) * 1024 for parts in lines if len(parts) >= 2 and parts[1].isdigit()}
    total, available = table.get("MemTotal"), table.get("MemAvailable")
    if total is None and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit, used = _read("/sys/fs/cgroup/memory.max").strip(), _read("/sys/fs/cgroup/memory.current").strip()
    if limit.isdigit() and (total is None or int(limit) < total):
        total = int(limit)
        free = max(0, total - int(used)) if used.isdigit() else total
        available = free if available is None else min(available, free)
    return total, available


def compiler() -> str | None:
    """Path of the C++ compiler that ``torch.compile`` would use on CPU (``CXX``, else g++ or clang++), or None."""
    names = [os.environ["CXX"].split()[0]] if os.environ.get("CXX", "").split() else ["g++", "clang++"]
    return next((found for name in names if (found := shutil.which(name))), None)


def libc() -> str:
    """Name and version of the C library, for example ``glibc 2.36``."""
    name, version = platform.libc_ver()
    return f"{name} {version}".strip() or f"{platform.system()} {platform.release()}"


def size(count: int | None) -> str:
    """Bytes in words: ``23.4 GiB``."""
    if count is None:
        return "unknown"
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def describe(folder: Path | None = None, *, with_torch: bool = True) -> list[Fact]:
    """Everything ``norma doctor`` says; ``folder`` (default: the working folder) is where disk space is looked at."""
    facts = [_system(), _cores(), _memory(), _disk(folder or Path.cwd()), _allocator(), _caches(), _compiler()]
    return facts + torch_facts() if with_torch else facts


def _system() -> Fact:
    found = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {libc()}"
    good = sys.version_info >= (3, 11)
    return Fact("system", found, "as it is" if good else "too old", "Norma needs Python 3.11 or newer")


def _cores() -> Fact:
    every, usable = os.cpu_count() or 1, cores()
    found = f"{every} in the machine, {usable} usable"
    if os.environ.get("OMP_NUM_THREADS"):
        return Fact("cores", found, f"{threads()} threads", "OMP_NUM_THREADS says so")
    return Fact("cores", found, f"{usable} threads", "the number is kept for a run: another one changes the last bits of the result")


def _memory() -> Fact:
    total, available = memory()
    found = f"{size(total)}, {size(available)} free"
    if available is not None and available < 4 * 2**30:
        return Fact("memory", found, "small batches advised", "the demo takes up to 4 GiB")
    return Fact("memory", found, "as it is", "the demo takes up to 4 GiB")


def _disk(folder: Path) -> Fact:
    existing = next((p for p in (folder.absolute(), *folder.absolute().parents) if p.exists()), Path("/"))
    free = shutil.disk_usage(existing).free
    chosen = "as it is" if free > 2 * 2**30 else "free some space first"
    return Fact("disk", f"{size(free)} free at {existing}", chosen, "an artefact is written beside the old one, then renamed")


def _allocator() -> Fact:
    other = other_allocator()
    return Fact("allocator", other or libc(), _state["allocator"], "fresh pages from the kernel cost more than the arithmetic on them")


def _caches() -> Fact:
    found = ", ".join(f"{name}={os.environ.get(name, 'not set')}" for name in _CACHE_LIMITS)
    bounded = all(os.environ.get(name) for name in _CACHE_LIMITS)
    return Fact("shape caches", found, "bounded" if bounded else "unbounded", "unbounded, texts of varying length grow memory without end")


def _compiler() -> Fact:
    path, headers = compiler(), Path(sysconfig.get_path("include")) / "Python.h"
    why = "torch.compile on CPU builds C++"
    if path is None:
        return Fact("compiler", "no C++ compiler", "eager", f"{why}; install g++ to gain about a quarter of speed")
    if not headers.is_file():
        return Fact("compiler", f"{path}, no Python headers", "eager", f"{why} against Python.h; install the python3-dev package")
    return Fact("compiler", path, "torch.compile is possible", why)


def torch_facts() -> list[Fact]:
    """Facts that need torch: its build, the GPUs, and the number format training would use. Imports torch."""
    import torch

    facts = [Fact("torch", torch.__version__, f"{torch.get_num_threads()} threads", "torch takes one thread a core unless told otherwise")]
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    mps = bool(torch.backends.mps.is_available())
    if gpus:
        facts.append(Fact("accelerator", ", ".join(gpus), "cuda", "the fastest device found"))
        device, reason = "cuda", "the GPU"
    else:
        found = "Apple GPU" if mps else "none"
        facts.append(Fact("accelerator", found, "cpu", "small models are trained and tested on CPU; a CUDA device would be used"))
        device, reason = "cpu", "the CPU"
    flags = cpu_flags() & {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "bf16", "asimd"}
    found = f"CPU flags: {', '.join(sorted(flags)) or 'none known'}"
    if working_dtype(device) == torch.bfloat16:
        chosen, why = "bf16, with fp32 master weights", f"{reason} multiplies bf16 in hardware, about twice as fast as fp32"
    else:
        chosen, why = "fp32", f"{reason} has no bf16 arithmetic, and emulated it is slower than fp32"
    return [*facts, Fact("number format", found, chosen, why)]


def _read(path: str) -> str:
    """A small system file, or "" where it does not exist or may not be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
