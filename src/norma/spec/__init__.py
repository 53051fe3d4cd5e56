"""Floor 1: the spec. One file of rules (规范) becomes prompts, verdicts and rewards. Knows nothing of models; loads no torch.

spec.yaml ─loader─→ Spec ─┬─ resolve(item)           which rules are active for this input, and why
                          ├─ render(messages, ...)   instructive prompting: the norm stands in the input
                          ├─ verdicts(item, y, role) each checker's finding, wrapped with hashes
                          └─ rewards(items, group)   R(x, y): mean, gate, lexicographic or Lagrangian
"""

from __future__ import annotations

from norma.spec.compose import ascend, costs
from norma.spec.lint import LintFinding, lint
from norma.spec.registry import register, unregister
from norma.spec.render import spec_markdown
from norma.spec.rule import Rule
from norma.spec.schema import Mode, Objective, Role, SpecFile, Split, json_schema
from norma.spec.spec import Spec
from norma.spec.types import (
    Checker,
    CheckerFailure,
    CheckerKind,
    Finding,
    Item,
    Message,
    Resolution,
    Reward,
    RuleStatus,
    Standing,
    Status,
    Verdict,
)

__all__ = [
    "Checker",
    "CheckerFailure",
    "CheckerKind",
    "Finding",
    "Item",
    "LintFinding",
    "Message",
    "Mode",
    "Objective",
    "Resolution",
    "Reward",
    "Role",
    "Rule",
    "RuleStatus",
    "Spec",
    "SpecFile",
    "Split",
    "Standing",
    "Status",
    "Verdict",
    "ascend",
    "costs",
    "json_schema",
    "lint",
    "register",
    "spec_markdown",
    "unregister",
]
