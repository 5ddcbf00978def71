"""For every test: children can be interrupted, also where this run was itself started in the background."""

from __future__ import annotations

import signal

# A shell starts background jobs with SIGINT ignored, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
