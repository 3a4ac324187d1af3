from __future__ import annotations

from hypothesis import settings

# Machines that run these are shared: how long an example takes says nothing.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
