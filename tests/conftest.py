"""For every test: children can be interrupted, and no property is timed, wherever the run was started."""

from __future__ import annotations

import signal

from hypothesis import settings

# These machines are shared: how long an example takes says nothing.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")

# A shell starts background jobs with SIGINT ignored, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
