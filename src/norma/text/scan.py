"""One Python file to its docstrings, read with ``ast``: nothing is imported, nothing is run.

``python -m norma.text.scan`` is the worker of ``norma.text.docstrings``: it reads file jobs as JSON lines from standard
input and writes one JSON line a file. Separate processes, rather than ``multiprocessing``, because they need nothing
from the caller's ``__main__`` and carry none of its threads. Only the standard library is loaded here.
"""

from __future__ import annotations

import ast
import gc
import gzip
import json
import re
import sys
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from norma.text.summaries import explain

GENERATED = re.compile(
    rb"^\s*#.*(?:auto-?\s?generated|automatically (?:generated|created)|generated (?:by|from|using)|do not (?:edit|modify))",
    re.IGNORECASE | re.MULTILINE,
)
MAX_DEFAULT = 24  # characters of a default value shown in a signature

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Scanned:
    """What one file holds. ``docs`` are JSON objects (name, kind, parameters, summary, fault, body)."""

    docs: list[dict[str, Any]] = field(default_factory=list)
    defined: list[str] = field(default_factory=list)
    imports: list[tuple[str, str, str]] = field(default_factory=list)  # (name here, module it comes from, name there)
    stars: list[str] = field(default_factory=list)
    fault: str = ""
    skipped: Literal["", "generated", "no docstrings"] = ""


def scan(data: bytes, module: str, package: bool) -> Scanned:
    """Docstrings, definitions and re-exports of a module's source ``data``.

    Args:
        module: its dotted name, for relative imports.
        package: whether it is an ``__init__.py``.
    """
    if GENERATED.search(data[:800]):
        return Scanned(skipped="generated")
    if not package and b'"""' not in data and b"'''" not in data and b" import *" not in data and len(data) > 2000:
        return Scanned(skipped="no docstrings")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(data)
    except (SyntaxError, ValueError, UnicodeDecodeError, RecursionError, MemoryError) as error:
        why = (str(error).splitlines() or ["no reason given"])[0]
        return Scanned(fault=f"not valid Python ({type(error).__name__}: {why})")
    found = Scanned()
    document(found, tree, "", "module", None)
    for node in statements(tree.body):
        if isinstance(node, ast.ImportFrom):
            origin = _origin(node, module, package)
            for alias in node.names:
                if alias.name == "*":
                    found.stars.append(origin)
                elif not (alias.asname or alias.name).startswith("_"):
                    found.imports.append((alias.asname or alias.name, origin, alias.name))
        elif isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            found.defined.append(node.name)
            definition(found, node, "")
    return found


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a body, also those under ``if`` and ``try``."""
    for node in body:
        if isinstance(node, ast.If):
            yield from statements(node.body)
            yield from statements(node.orelse)
        elif isinstance(node, ast.Try):
            yield from statements(node.body)
        else:
            yield node


def definition(found: Scanned, node: ast.ClassDef | Function, prefix: str) -> None:
    name = prefix + node.name
    if node.name.startswith("_") or any(_last(d) in ("overload", "setter", "deleter") for d in node.decorator_list):
        return
    if isinstance(node, ast.ClassDef):
        init = next((n for n in statements(node.body) if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        document(found, node, name, "class", init)
        for member in statements(node.body):
            if isinstance(member, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                definition(found, member, name + ".")
        return
    decorators = {_last(d) for d in node.decorator_list}
    if decorators & {"property", "cached_property", "abstractproperty", "cache_readonly"}:
        document(found, node, name, "property", None)
    else:
        document(found, node, name, "method" if prefix else "function", node)


def document(found: Scanned, node: ast.Module | ast.ClassDef | Function, name: str, kind: str, call: Function | None) -> None:
    raw = ast.get_docstring(node, clean=False)
    if not raw or len(raw) < 20:
        return
    told = explain(raw)
    if not told.summary and not told.body:
        return
    parameters = None
    if call is not None:
        bound = kind in ("class", "method") and not any(_last(d) == "staticmethod" for d in call.decorator_list)
        parameters = signature(call.args, bound)
    found.docs.append({"name": name, "kind": kind, "parameters": parameters, **vars(told)})


def signature(args: ast.arguments, bound: bool) -> list[str]:
    """Parameters as they are written in a call for help: names and defaults, no annotations, without ``self``."""
    plain = [*args.posonlyargs, *args.args]
    defaults: list[ast.expr | None] = [None] * (len(plain) - len(args.defaults)) + list(args.defaults)
    shown = [_parameter(a.arg, d) for a, d in zip(plain, defaults, strict=True)]
    if args.posonlyargs:
        shown.insert(len(args.posonlyargs), "/")
    if bound and plain:
        shown = shown[1:]
        if shown[:1] == ["/"]:
            shown = shown[1:]
    if args.vararg:
        shown.append("*" + args.vararg.arg)
    elif args.kwonlyargs:
        shown.append("*")
    shown += [_parameter(a.arg, d) for a, d in zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    if args.kwarg:
        shown.append("**" + args.kwarg.arg)
    return shown


def _parameter(name: str, default: ast.expr | None) -> str:
    if default is None:
        return name
    text = ast.unparse(default)
    return f"{name}={text if len(text) <= MAX_DEFAULT and text.isascii() and text.isprintable() and '`' not in text else '...'}"


def _last(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _origin(node: ast.ImportFrom, module: str, package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    parts = parts[: len(parts) - node.level + package]
    return ".".join([*parts, *([node.module] if node.module else [])])


def scan_file(path: str, module: str, package: bool) -> dict[str, Any]:
    """``scan`` of a file as a JSON object; an unreadable file is a fault, not an error."""
    try:
        data = Path(path).read_bytes()
        return vars(scan(gzip.decompress(data) if path.endswith(".gz") else data, module, package))
    except (OSError, EOFError, zlib.error) as error:
        return vars(Scanned(fault=f"not readable ({error})"))


if __name__ == "__main__":
    gc.disable()  # syntax trees hold no cycles, and looking for some doubles the time to parse
    for line in sys.stdin:
        sys.stdout.write(json.dumps(scan_file(*json.loads(line))) + "\n")
