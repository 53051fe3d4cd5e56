"""promptfoo: the elicitation prompts as tests, the rules that are active for each as assertions.

A rule with report checkers is asserted by them (type python); one without is put to promptfoo's model grader as it stands (llm-rubric).
A spec knows no model, and promptfoo wants one: its own `echo` stands there, `promptfoo eval -c FILE -r openai:chat:...` names the real one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from norma.base.errors import NormaError
from norma.base.files import write_text
from norma.spec.spec import Spec

HELP = "the spec as promptfoo tests (YAML): one test per prompt, one assertion per active rule"

_PYTHON = "from norma.spec.exporters.judging import promptfoo\nreturn promptfoo(output, context)\n"


def write(source: Path, out: Path, language: str | None) -> list[Path]:
    """One promptfooconfig.yaml."""
    spec = Spec.load(source)
    write_text(out, yaml.safe_dump(config(spec, source.resolve(), language), sort_keys=False, allow_unicode=True, width=140))
    return [out]


def config(spec: Spec, path: Path, language: str | None = None) -> dict[str, Any]:
    """The configuration as JSON values. ``language``: only prompts of it; None: all."""
    items = [i for i in spec.elicit() if language is None or i.language == language]
    if not items:
        raise NormaError("this spec has no elicitation prompts", where=path, mend="Add 'elicit:' to its rules")
    checked = spec.checkers("report")
    tests = []
    for item in items:
        row = {"id": item.id, "messages": [dict(m) for m in item.messages], "language": item.language, "facts": dict(item.facts)}
        asserted: list[dict[str, Any]] = []
        for rule in spec.resolve(item).active:
            if rule in checked:
                # Variables of one test are shared by its assertions: what differs goes into the assertion's own configuration.
                code = _PYTHON.replace("context)", f"{{**context, 'vars': {{**context['vars'], 'norma_rule': {rule!r}}}}})")
                asserted.append({"type": "python", "metric": rule, "value": code})
            else:
                asserted.append({"type": "llm-rubric", "metric": rule, "value": spec.rule(rule).text(item.language).strip()})
        variables = {"messages": row["messages"], "norma_spec": str(path), "norma_item": row}
        tests.append({"description": item.id, "vars": variables, "assert": asserted})
    return {
        "description": f"{spec.id} {spec.version}",
        "providers": ["echo"],
        "prompts": ["{{ messages | dump | safe }}"],
        "tests": tests,
    }
