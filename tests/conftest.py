"""For all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How fast this machine makes examples says nothing of the code.
settings.register_profile("flow", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("flow")
