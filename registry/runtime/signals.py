"""Signals between the processes of an instance.

SIGTERM, SIGINT and SIGHUP come from outside and may reach all processes at once: from a terminal's Ctrl-C, or from a
service manager that signals the process group. Only the supervisor acts on them; it ends the others by its own signal.
"""

import signal

FROM_OUTSIDE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
END = signal.SIGUSR1
