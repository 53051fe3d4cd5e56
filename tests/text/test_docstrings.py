"""Docstrings: markup to prose, the summary a careful editor would accept, names people use, the same order every time."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

from norma.base.errors import NormaError
from norma.text.docstrings import Package, choose, cut_signature, python_files, read_docstrings
from norma.text.markup import blocks, inline
from norma.text.quarantine import Quarantine
from norma.text.scan import scan
from norma.text.summaries import explain, fault, first_sentence

NUMPY = """
    Compute the ``median`` along an axis, e.g. of :class:`~lib.Array` rows [1]_. More here.

    Parameters
    ----------
    a : array_like
        Input that is converted
        to an array.
    axis : {int, None}, optional
        Where to compute.

    Returns
    -------
    out : ndarray
        The middle value.

    See Also
    --------
    mean : other

    Examples
    --------
    >>> median([1, 2])
    1.5

    Notes
    -----
    The result is exact. It uses :math:`\\alpha + 1` here. As follows::

        code = 1

    .. versionadded:: 1.2
"""


def test_numpydoc() -> None:
    told = explain(NUMPY)
    assert (told.summary, told.fault) == ("Compute the `median` along an axis, e.g. of `Array` rows.", "")
    assert told.body == (
        "More here.\nParameters:\n- a: Input that is converted to an array.\n- axis: Where to compute.\n"
        "Returns:\n- out: The middle value.\nNotes:\nThe result is exact."
    )


def test_google_and_sphinx() -> None:
    google = explain(
        "Reads one file.\n\nIt may be long.\n\nArgs:\n    path (str): where it\n        lies\n"
        "    size (`int`, *optional*, defaults to `3`):\n        How much.\n"
        "\nReturns:\n    The text.\n\nExample::\n\n    read('x')\n\nRaises:\n    OSError: if it is gone."
    )
    assert google.summary == "Reads one file."
    assert google.body == (
        "It may be long.\nArgs:\n- path: where it lies\n- size: How much.\nReturns:\nThe text.\nRaises:\n- OSError: if it is gone."
    )
    sphinx = explain(
        "Opens the door slowly.\n\n:param str key: the key\n:type key: str\n:returns: nothing of note\n:raises KeyError: if lost"
    )
    assert sphinx.body == "- key: the key\n- Returns: nothing of note\n- Raises KeyError: if lost"


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        (":func:`os.path.join` and :py:meth:`~a.B.c`", "`os.path.join` and `c`"),
        ("see `the guide <https://x.y>`_ now", "see the guide now"),
        ("[text](http://x) **bold** *soft* |Sub| and ``code``", "text bold soft Sub and `code`"),
        ("`.ArgumentError` with *args and **kwargs", "`ArgumentError` with *args and **kwargs"),
        (":ref:`the title <label>` [2]_ end .", "the title end."),
        ("2 * 3 * 4", "2 * 3 * 4"),
    ],
)
def test_inline_markup(marked: str, plain: str) -> None:
    assert inline(marked) == plain


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("Use e.g. This one. Then that.", "Use e.g. This one."),
        ("Version 1.5 of a.b is read. Next.", "Version 1.5 of a.b is read."),
        ("Call it (see A. B.) once. Twice.", "Call it (see A. B.) once."),
        ("No end here", "No end here"),
    ],
)
def test_first_sentence(text: str, first: str) -> None:
    assert first_sentence(text)[0] == first


@pytest.mark.parametrize(
    "summary",
    [
        "See base class.",
        "Deprecated since version two of it.",
        "TODO write this one later.",
        "Café tables are listed here.",
        "Too short.",
        "Read https://example.org for the details.",
        "Compute the value of:",
        "Return our own array of numbers.",
        "A `b without its end.",
        "Initialize self.",
        "It also does this other thing.",
        "Set x=1, y=2 and z==3 now.",
        "Word " * 31 + "end.",
        "Return the the value of it.",
    ],
)
def test_summaries_that_teach_nothing(summary: str) -> None:
    assert fault(explain(summary).summary or summary)


@pytest.mark.parametrize(
    "summary", ["Return the sum of all elements.", "Serialize `obj` to a JSON formatted `str`.", "Base class for all errors."]
)
def test_summaries_that_teach(summary: str) -> None:
    assert fault(summary) == ""


def test_normal_form() -> None:
    assert explain("return the sum\n    of all elements").summary == "Return the sum of all elements."
    assert explain("foo(x, y) -> int\n\nAdd two numbers together !").summary == "Add two numbers together."
    assert explain(":param x: the number to add").fault == "no opening sentence"
    assert "Add two numbers" not in explain("Add two numbers together.\n\nNote. Add two numbers together.").body


def test_scan_reads_what_is_written_and_runs_nothing() -> None:
    source = '''
"""A module that tells something."""
from .sub import thing as other
from .more import *
raise SystemExit
class A(B):
    """A class of its own kind."""
    def __init__(self, a: int, /, b=1, *c, d: str = "x" * 3, **e): "no"
    @property
    def p(self):
        """The property of this thing."""
    @staticmethod
    def s(x=[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]):
        """A static method without self."""
    def _hidden(self):
        """Not to be shown to anyone."""
if True:
    async def f(*, key):
        """A function under a condition."""
'''
    found = scan(source.encode(), "pkg.mod", package=False)
    shown = {d["name"]: (d["kind"], d["parameters"]) for d in found.docs}
    assert shown == {
        "": ("module", None),
        "A": ("class", ["a", "/", "b=1", "*c", "d='x' * 3", "**e"]),
        "A.p": ("property", None),
        "A.s": ("method", ["x=..."]),
        "f": ("function", ["*", "key"]),
    }
    assert found.imports == [("other", "pkg.sub", "thing")] and found.stars == ["pkg.more"] and found.defined == ["A", "f"]


def test_broken_and_generated_files() -> None:
    assert "not valid Python" in scan(b"def f(:\n", "m", False).fault
    assert "not valid Python" in scan(b"x = '\xff'\n", "m", True).fault
    assert scan(b"# Generated by a machine. DO NOT EDIT\nx = 1\n", "m", False).skipped == "generated"


def tree(folder: Path) -> Package:
    files = {
        "pkg/__init__.py": "from ._impl import work\nfrom .public import *\n",
        "pkg/_impl.py": 'def work(a):\n    """Work on the thing at hand."""\ndef left():\n    """Not exported from this module."""\n',
        "pkg/public.py": 'class Tool:\n    """A tool for all kinds of work."""\n'
        '    def use(self):\n        """Use the tool on a thing."""\n',
        "pkg/tests/test_x.py": 'def t():\n    """Never to be read by anyone."""\n',
        "pkg/_vendor/y.py": 'def t():\n    """Never to be read by anyone."""\n',
        "pkg/broken.py": "def (",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return Package("pkg", "1.0", (folder / "pkg",))


def test_names_are_those_people_use(tmp_path: Path) -> None:
    quarantine = Quarantine()
    found = read_docstrings([tree(tmp_path)], quarantine, processes=1)
    assert [(e.name, e.module, e.document) for e in found.entries] == [
        ("pkg.Tool", "pkg", "pkg.public"),
        ("pkg.Tool.use", "pkg", "pkg.public"),
        ("pkg.work", "pkg", "pkg._impl"),
    ]
    assert found.entries[2].signature == "pkg.work(a)" and [f for f, _, _ in quarantine.first] == ["pkg/broken.py"]


def test_the_order_does_not_depend_on_the_number_of_processes() -> None:
    stdlib = choose(["stdlib"])[0]
    some = Package(
        "stdlib", "", tuple(r for r in stdlib.roots if r.name in ("json", "email", "logging", "asyncio", "unittest", "importlib", "csv.py"))
    )
    one, three = (read_docstrings([some], Quarantine(), processes=n) for n in (1, 3))
    assert len(list(python_files(some.roots[0]))) and len(one.entries) > 300
    assert one.entries == three.entries
    dumps = next(e for e in one.entries if e.name == "json.dumps")
    assert dumps.summary == "Serialize `obj` to a JSON formatted `str`." and dumps.signature.startswith("json.dumps(obj, *, skipkeys=False")
    assert {e.name for e in one.entries} >= {"json.JSONDecoder", "logging.Logger.debug"}


def test_choosing_packages() -> None:
    assert [p.name for p in choose(["numpy", "stdlib"])] == ["numpy", "stdlib"]
    assert "stdlib" in [p.name for p in choose("installed")]
    with pytest.raises(NormaError, match="Did you mean 'numpy'"):
        choose(["nunpy"])


def test_cut_signature() -> None:
    whole = "a.b(one, two=2, three=3)"
    assert cut_signature(whole, 100) == whole
    assert cut_signature(whole, 19) == "a.b(one, ...)" and cut_signature(whole, 12) == "a.b(...)"


def test_blocks_survive_any_standard_docstring() -> None:
    for module in (json, inspect):
        for _, thing in inspect.getmembers(module):
            if doc := getattr(thing, "__doc__", None):
                assert all("\n" not in b.text for b in blocks(doc))
