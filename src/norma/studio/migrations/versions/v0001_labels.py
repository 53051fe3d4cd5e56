"""The label store as it was before there was a studio. A store that has it is stamped, not made again."""

from __future__ import annotations

from alembic import op

from norma.labels.schema import prepare

revision, down_revision = "0001", None


def upgrade() -> None:
    prepare(op.get_bind())
