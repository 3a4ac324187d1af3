"""`python -m lazyneg`, for launchers that start modules."""

from __future__ import annotations

from lazyneg.cli import app

app(prog_name="lazyneg")
