"""Python files that a recipe names. They run with the user's rights, so they run only when the user says ``--trust``."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from norma.base.errors import NormaError
from norma.base.hashing import digest


def load_trusted(files: Sequence[Path], trust: bool, where: object) -> None:
    """Run each file; a file usually calls ``norma.pipeline.register(MyStage())``, and what it registers replaces older kinds."""
    if not files:
        return
    names = ", ".join(file.name for file in files)
    if not trust:
        mend = "Read them, then run the same command with --trust"
        raise NormaError(f"this recipe runs Python code of its own: {names}", where=where, mend=mend)
    for file in files:
        if not file.is_file():
            raise NormaError("file not found", where=file, mend=f"It is named under 'trust:' at {where}")
        name = f"norma_trusted_{digest(str(file))[:16]}"
        found = importlib.util.spec_from_file_location(name, file)
        if found is None or found.loader is None:
            raise NormaError("not a Python file", where=file, mend="Files under 'trust:' end in .py")
        module = importlib.util.module_from_spec(found)
        sys.modules[name] = module
        try:
            found.loader.exec_module(module)
        except SyntaxError as error:
            del sys.modules[name]
            raise NormaError(f"not valid Python: {error.msg}", where=f"{error.filename}:{error.lineno}") from error
        except BaseException:
            del sys.modules[name]
            raise
