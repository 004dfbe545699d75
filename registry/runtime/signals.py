"""Signals between the processes of an instance.

SIGTERM, SIGINT and SIGHUP come from outside and may reach all processes at once: from a terminal's Ctrl-C, or from a
service manager that signals the process group. Only the supervisor acts on the first two; it ends the others by its own
signal. On SIGHUP an instance with TLS reads the files again: each process on its own, and the supervisor passes the
signal on, which may so arrive twice. An instance without TLS ends.
"""

import signal

FROM_OUTSIDE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
END = signal.SIGUSR1
RELOAD = signal.SIGHUP
