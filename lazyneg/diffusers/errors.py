"""What can go wrong with a delay."""

from __future__ import annotations


class DelayError(RuntimeError):
    """This pipeline call cannot be made with its negative prompt delayed exactly."""
