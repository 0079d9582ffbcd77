"""For all tests."""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

# How fast this machine makes examples says nothing of the code.
_UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same examples in each run: whether a change passes is no matter of luck. Other ones, to look for what nobody
# thought of: `HYPOTHESIS_PROFILE=explore pytest tests/property`.
settings.register_profile("flow", parent=_UNHURRIED, derandomize=True)
settings.register_profile("explore", parent=_UNHURRIED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "flow"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background ignores Ctrl-C, and so would every program that tests start and stop by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
