"""lm-eval (EleutherAI): a task folder. Prompts as JSON lines, one metric per rule, answers judged by the spec's own checkers.

OUT/norma_<id>.yaml  OUT/prompts.jsonl  OUT/utils.py      lm_eval --include_path OUT --tasks norma_<id> ...
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from norma.base.errors import NormaError
from norma.base.files import write_jsonl, write_text
from norma.spec.spec import Spec

HELP = "the spec as an lm-eval task: a folder with the task's YAML, its prompts and three lines of Python"

_UTILS = '''"""Judges answers with the checkers of a Norma spec."""

from norma.spec.exporters import judging

SPEC = {path!r}


def process_results(doc, results):
    return judging.lm_eval(SPEC, doc, results)


def mean_of_scored(values):
    return judging.mean_of_scored(values)
'''


class _Function(str):
    """A name in utils.py, written as lm-eval's ``!function`` tag."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(_Function, lambda dumper, name: dumper.represent_scalar("!function", str(name)))


def write(source: Path, out: Path, language: str | None) -> list[Path]:
    """A task folder."""
    spec = Spec.load(source)
    items = [i for i in spec.elicit() if language is None or i.language == language]
    if not items:
        raise NormaError("this spec has no elicitation prompts", where=source, mend="Add 'elicit:' to its rules")
    out.mkdir(parents=True, exist_ok=True)
    name = "norma_" + re.sub(r"[^a-z0-9]+", "_", spec.id)
    paths = [out / f"{name}.yaml", out / "prompts.jsonl", out / "utils.py"]
    write_text(paths[0], yaml.dump(task(spec, name, paths[1].resolve()), Dumper=_Dumper, sort_keys=False, allow_unicode=True))
    write_jsonl(
        paths[1],
        (
            {
                "id": i.id,
                "language": i.language,
                "facts": dict(i.facts),
                "messages": [dict(m) for m in i.messages],
                "system": "\n".join(m["content"] for m in i.messages if m["role"] != "user"),
                "prompt": i.user,
            }
            for i in items
        ),
    )
    write_text(paths[2], _UTILS.format(path=str(source.resolve())))
    return paths


def task(spec: Spec, name: str, prompts: Path) -> dict[str, Any]:
    """The task's YAML as JSON values, ``!function`` names marked."""
    mean = {"aggregation": _Function("utils.mean_of_scored"), "higher_is_better": True}
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(prompts)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{% if system %}{{system}}\n\n{% endif %}{{prompt}}",
        "doc_to_target": "",
        "process_results": _Function("utils.process_results"),
        "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": 512},
        "metric_list": [{"metric": metric, **mean} for metric in ("norma_kept", *spec.checkers("report"))],
        "metadata": {"version": spec.version, "spec": spec.digest},
    }
