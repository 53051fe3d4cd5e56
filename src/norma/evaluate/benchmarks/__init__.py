"""Public benchmarks: what a model knows and can do, with intervals, and paired tests between two models.

data by path ─→ examples (rows) ─→ prompts, few-shot (prompts) ─→ the model: nats or text (subject), kept in files
answers ─→ sufficient statistics of each row (a file per idea) ─→ scores with intervals (scores, intervals) ─→ results.json
results.json of A and of B ─→ paired differences, Holm over tasks (paired)
"""

from __future__ import annotations

from norma.evaluate.benchmarks.paired import compare_results
from norma.evaluate.benchmarks.run import evaluate
from norma.evaluate.benchmarks.task import TASKS, Task, read_tasks, tasks_of

__all__ = ["TASKS", "Task", "compare_results", "evaluate", "read_tasks", "tasks_of"]
