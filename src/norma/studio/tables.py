"""The studio's own tables, beside those of the label store (``norma.labels.schema``), which stay as they are.

    tasks      the work: one answer under one rule, how many people are to see it, how it stands. Derived: marks can rebuild it
    seen       who has marked which task (or passed over it)
    preferences   which of two answers somebody preferred; append-only
    users, sessions, attempts, audit   who may do what, and what was done

Tasks are the only rows that change; every change follows a mark that is already committed, so a kill between the two loses nothing.
"""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()
TASKS = Table(
    "studio_tasks",
    metadata,
    Column("key", String(64), primary_key=True),  # norma.labels.queues.Candidate.key: the answer under the rule
    Column("place", Integer, nullable=False),  # the order of showing
    Column("item", Text, nullable=False),
    Column("response_hash", String(64), nullable=False),
    Column("response", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("rule_hash", String(64), nullable=False),
    Column("language", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("inclusion_probability", Float),
    Column("machine", String(16), nullable=False),  # what the report's checker says, "" without one
    Column("method", Text, nullable=False),
    Column("wanted", Integer, nullable=False),  # people who are to mark it
    Column("marks", Integer, nullable=False),  # people who have
    Column("state", String(16), nullable=False),  # open, conflict (a reviewer decides), done
    Column("created", Float, nullable=False),
    Column("said", Text, nullable=False, server_default=""),  # work.pattern: who says what, for the agreement table; "" while nobody does
    Index("studio_tasks_by_state", "state", "place"),
    Index("studio_tasks_by_item", "item", "response_hash"),
    Index("studio_tasks_by_marks", "marks"),
)
SEEN = Table(
    "studio_seen",
    metadata,
    Column("task", String(64), primary_key=True),
    Column("annotator", Text, primary_key=True),
    Column("how", String(16), nullable=False),  # marked, skipped, opened
    Column("until", Float, nullable=False),  # opened: nobody else is given it until then
    Index("studio_seen_by_annotator", "annotator", "how", "until"),
)
PREFERENCES = Table(
    "studio_preferences",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("item", Text, nullable=False),
    Column("first", Text, nullable=False),
    Column("second", Text, nullable=False),
    Column("first_method", Text, nullable=False),
    Column("second_method", Text, nullable=False),
    Column("annotator", Text, nullable=False),
    Column("choice", String(8), nullable=False),  # first, second, tie
    Column("rationale", Text, nullable=False),
    Column("seconds", Float),
    Column("created", Float, nullable=False),
    Index("studio_preferences_by_annotator", "annotator", "item"),
)
USERS = Table(
    "studio_users",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("password", Text, nullable=False),  # argon2id
    Column("role", String(16), nullable=False),
    Column("active", Boolean, nullable=False),
    Column("created", Float, nullable=False),
)
SESSIONS = Table(
    "studio_sessions",
    metadata,
    Column("digest", String(64), primary_key=True),  # of the cookie's secret: who reads the database cannot log in with it
    Column("user", String(64), nullable=False, index=True),
    Column("created", Float, nullable=False),
    Column("expires", Float, nullable=False),
)
ATTEMPTS = Table(
    "studio_attempts",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("who", Text, nullable=False),  # "name:ann" or "from:127.0.0.1"
    Column("time", Float, nullable=False),
    Index("studio_attempts_by_who", "who", "time"),
)
AUDIT = Table(
    "studio_audit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("time", Float, nullable=False, index=True),
    Column("user", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("detail", JSON, nullable=False),
)
