"""Alembic's environment: how the tables of a studio came to be, step by step. Run by ``norma.studio.database``."""
