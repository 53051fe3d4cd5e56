"""The C++ files of a folder become a library that torch has loaded: compiled once for a machine, at first use, kept in the user's cache.

    sources, torch's version, compiler, flags, the CPU's features ─→ key ─→ ~/.cache/norma/kernels-<key>.so ─→ torch.ops

Nothing is built while importing. Several processes may build at the same time: each writes a file of its own and renames it into
place, so that a library is there as a whole or not at all. ``NORMA_KERNELS=off`` keeps PyTorch's own operators.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from norma.base.hashing import digest
from norma.base.platform import compiler, cores, cpu_flags

SWITCH = "NORMA_KERNELS"
WIDTHS = {"AVX512": 512, "AVX2": 256}  # bits of a vector, by what torch says of the CPU; ATEN_CPU_CAPABILITY=avx2 takes the narrow ones
COMPILERS = 4  # side by side; each takes .7 GB
FLAGS = "-std=c++20 -O3 -fPIC -fopenmp -march=native -w"


def refused() -> str | None:
    """Why nothing may be built here, in words; None: it may be tried."""
    if os.environ.get(SWITCH, "").strip().lower() in ("off", "0", "no", "false"):
        return f"{SWITCH}=off"
    if sys.platform != "linux" or torch.backends.cpu.get_cpu_capability() not in WIDTHS:
        return "written for Linux and AVX2 or AVX-512"
    if compiler() is None:
        return "no C++ compiler"
    return None


def flags() -> list[str]:
    """What the compiler is told, for the vectors that torch itself uses on this CPU."""
    capability = torch.backends.cpu.get_cpu_capability()
    chosen = f"-mprefer-vector-width={WIDTHS[capability]} -DCPU_CAPABILITY={capability} -DCPU_CAPABILITY_{capability}"
    return shlex.split(f"{FLAGS} {chosen}")


def library(folder: Path) -> Path:
    """Where the library of the sources in ``folder`` is, or will be."""
    sources = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.[ch]*"))]
    key = digest([sources, str(torch.__version__), compiler(), flags(), sorted(cpu_flags())])
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "norma" / f"kernels-{key[:16]}.so"


def load(folder: Path) -> str | None:
    """Compile the sources in ``folder`` unless that has been done, and load them into torch. None, or one line that says why not."""
    why = refused()
    if why is not None:
        return why
    try:
        built = library(folder)
        if not built.is_file():
            _compile(folder, built)
        torch.ops.load_library(str(built))  # type: ignore[no-untyped-call]  # torch has no types here
    except (OSError, RuntimeError) as error:
        return str(error).strip().splitlines()[0]
    return None


def _compile(folder: Path, built: Path) -> None:
    """Two and a half minutes of processor time on an EPYC with AVX2, files side by side. Raises RuntimeError with the first complaint."""
    print(f"norma: compiling kernels for this CPU, once ({SWITCH}=off does without)", file=sys.stderr, flush=True)
    built.parent.mkdir(parents=True, exist_ok=True)
    torch_folder = Path(torch.__file__).parent
    libraries, headers = torch_folder / "lib", torch_folder / "include"
    with tempfile.TemporaryDirectory(dir=built.parent) as temporary, ThreadPoolExecutor(min(cores(), COMPILERS)) as pool:
        fresh = Path(temporary) / built.name

        def compiled(source: Path) -> str:
            made = str(Path(temporary) / f"{source.stem}.o")
            _ask([*flags(), f"-I{headers}", "-c", str(source), "-o", made])
            return made

        objects = list(pool.map(compiled, sorted(folder.glob("*.cpp"))))
        _ask([*flags(), "-shared", *objects, "-o", str(fresh), f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-ltorch_cpu", "-lc10"])
        fresh.replace(built)


def _ask(arguments: list[str]) -> None:
    done = subprocess.run([str(compiler()), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        complaints = [line for line in done.stderr.splitlines() if "error" in line] or ["no message"]
        raise RuntimeError(f"{compiler()} failed: {complaints[0].strip()}")
