"""The stages of an instance: it joins its site, serves, and may leave for good."""

import asyncio


class Lifecycle:
    """The stage of this instance. `join` and `decommission` move it on; heartbeats, readiness and the process read
    it."""

    def __init__(self) -> None:
        self.has_joined = False
        """True once this instance has caught up with its site, or has stopped trying to before it serves."""
        self.answers_clients = asyncio.Event()
        """Set when this instance has joined, or has tried for as long as clients wait."""
        self.is_leaving = False
        """True once a decommission of this instance has begun. It is never undone."""
        self.has_left = False
        """True when the other instances have been told that this one is gone for good."""
        self.may_end = asyncio.Event()
        """Set when a decommissioned instance has lingered for as long as others may need it: the process ends then."""
