"""How the processes of an instance are spoken to.

What ends a server from outside (SIGTERM, SIGINT, SIGHUP) is the supervisor's to hear, and may strike all of them at
once: a terminal's Ctrl-C does, and whoever ends a service by its group. The others hear the supervisor alone.
"""

import signal

FROM_OUTSIDE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
END = signal.SIGUSR1
