"""What people said of each task, beside how many did: the agreement table counts tasks and reads no marks."""

from __future__ import annotations

import json
from itertools import groupby

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0003", "0002"
WITHDRAWN = "(withdrawn)"  # as it was when this step was written
MARKS = """
SELECT t.key, l.annotator, l.verdict, l.rationale FROM studio_tasks t
JOIN labels l ON l.item = t.item AND l.response_hash = t.response_hash AND l.rule = t.rule AND l.rule_hash = t.rule_hash
WHERE t.marks > 0 AND l.source = 'human' ORDER BY t.key, l.annotator, l.revision
"""


def upgrade() -> None:
    op.add_column("studio_tasks", sa.Column("said", sa.Text(), nullable=False, server_default=""))
    op.create_index("studio_tasks_by_marks", "studio_tasks", ["marks"])
    connection = op.get_bind()
    said = []
    for key, marks in groupby(connection.execute(sa.text(MARKS)).all(), key=lambda row: row.key):
        last = {m.annotator: m for m in marks}  # of each person the last revision
        standing = {who: m.verdict for who, m in sorted(last.items()) if m.rationale != WITHDRAWN}
        if standing:
            said.append({"task": key, "said": json.dumps(standing, ensure_ascii=False)})
    if said:
        connection.execute(sa.text("UPDATE studio_tasks SET said = :said WHERE key = :task"), said)
