"""The state of a drain: set by the drain (`runtime.drain`), read where requests are answered."""


class DrainState:
    """The state of one instance."""

    def __init__(self) -> None:
        self.draining = False
        """True once the instance is to end: it is not ready any more."""
        self.begins_uploads = True
        """True if a new upload may begin here: not once a balancer has had time to learn that this instance drains."""
