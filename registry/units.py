"""Units: sizes in bytes, and durations in seconds and in milliseconds.

Names of durations end in `_s` (seconds, float) or `_ms` (milliseconds, int), and names of sizes in `_bytes`.
"""

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

MINUTE_S = 60.0
HOUR_S = 60 * MINUTE_S
DAY_S = 24 * HOUR_S


def to_ms(seconds: float) -> int:
    """Return a duration in whole milliseconds, rounded down."""
    return int(seconds * 1000)


def to_s(milliseconds: float) -> float:
    """Return a duration in seconds."""
    return milliseconds / 1000
