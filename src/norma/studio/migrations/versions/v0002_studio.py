"""The studio's tables, and indexes over the labels for the pace of an annotator and for the marks of a task."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0002", "0001"


def upgrade() -> None:
    text, number, real = sa.Text(), sa.Integer(), sa.Float()

    def short(size: int) -> sa.String:
        return sa.String(size)

    def col(name: str, kind: sa.types.TypeEngine[Any], **more: Any) -> sa.Column[Any]:
        return sa.Column(name, kind, **{"nullable": False, **more})

    op.create_table(
        "studio_tasks",
        col("key", short(64), primary_key=True), col("place", number), col("item", text), col("response_hash", short(64)),
        col("response", text), col("rule", text), col("rule_hash", short(64)), col("language", text), col("queue", text),
        col("inclusion_probability", real, nullable=True), col("machine", short(16)), col("method", text), col("wanted", number),
        col("marks", number), col("state", short(16)), col("created", real),
    )  # fmt: skip
    op.create_index("studio_tasks_by_state", "studio_tasks", ["state", "place"])
    op.create_index("studio_tasks_by_item", "studio_tasks", ["item", "response_hash"])
    op.create_table(
        "studio_seen",
        col("task", short(64), primary_key=True), col("annotator", text, primary_key=True), col("how", short(16)), col("until", real),
    )  # fmt: skip
    op.create_index("studio_seen_by_annotator", "studio_seen", ["annotator", "how", "until"])
    op.create_table(
        "studio_preferences",
        col("key", short(64), primary_key=True), col("item", text), col("first", text), col("second", text), col("first_method", text),
        col("second_method", text), col("annotator", text), col("choice", short(8)), col("rationale", text),
        col("seconds", real, nullable=True), col("created", real),
    )  # fmt: skip
    op.create_index("studio_preferences_by_annotator", "studio_preferences", ["annotator", "item"])
    op.create_table(
        "studio_users",
        col("name", short(64), primary_key=True), col("password", text), col("role", short(16)), col("active", sa.Boolean()),
        col("created", real),
    )  # fmt: skip
    op.create_table(
        "studio_sessions",
        col("digest", short(64), primary_key=True), col("user", short(64), index=True), col("created", real), col("expires", real),
    )  # fmt: skip
    op.create_table("studio_attempts", col("id", number, primary_key=True, autoincrement=True), col("who", text), col("time", real))
    op.create_index("studio_attempts_by_who", "studio_attempts", ["who", "time"])
    op.create_table(
        "studio_audit",
        col("id", number, primary_key=True, autoincrement=True), col("time", real, index=True), col("user", text), col("address", text),
        col("action", text), col("detail", sa.JSON()),
    )  # fmt: skip
    op.create_index("studio_labels_by_annotator", "labels", ["annotator", "created"])
    # All four are known when a task is looked at: else SQLite takes the index by rule and annotator, and reads thousands of rows.
    op.create_index("studio_labels_by_task", "labels", ["item", "response_hash", "rule", "annotator"])
