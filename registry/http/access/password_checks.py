"""Checks of passwords: cached, shared by requests that bring the same one, throttled, and few at once.

A wrong password costs as much as a right one, and one for an account that does not exist as much as both: a hash of no
known password is verified in its place. Wrong ones are remembered for a while, since clients repeat them (containerd
and buildx ask the token endpoint by POST and then by GET), for as long as no fact changes. A client that keeps guessing
is throttled by account and network of the client. The account is never locked: its owner, in another network, notices
nothing.

The primary checks. A worker that meets a password it does not know has the primary check it, by a request for a token.
"""

import asyncio
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import NamedTuple, Protocol

from blake3 import blake3

from registry.access.passwords import DUMMY_HASH, MAX_CHARACTERS, verify_password
from registry.access.rights import Credential, CredentialKind
from registry.errors import TooManyLogins
from registry.http.access.fair_turns import FairTurns
from registry.http.access.primary_tokens import token_of_primary
from registry.http.access.verified import VerifiedPasswords
from registry.http.wire.process_relay import ProcessRelay
from registry.ports import Clock
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent
from registry.telemetry.log_limit import LogLimit

log = EventLog("concord.access_control")

FAILURE_S = 30.0
MAX_FAILURES = 10_000
BURST = 10
"""Wrong passwords that a network may try for one account at once."""
REFILL_S = 6.0
"""Time after which it may try another one."""
MAX_THROTTLED = 10_000
_DUMMY = Credential("", "", CredentialKind.PASSWORD, DUMMY_HASH, None)


class Attempt(NamedTuple):
    """A name and a password, and the client's network."""

    name: str
    password: str
    network: str


class PasswordChecks(Protocol):
    """The way to have a password checked."""

    async def check(self, attempt: Attempt, credentials: Sequence[Credential]) -> Credential | None:
        """Return the one of an account's password credentials that the password matches; None where it matches none.
        Raises TooManyLogins, and ProcessUnreachable."""


MAX_NAME_CHARACTERS = 128
"""Bound on the names that are looked at: no account has a longer one."""
MAX_ACCEPTED = 10_000
"""Bound on the credentials that are noted as used between two reports."""


class Logins:
    """The logins of one process: the credentials that were accepted, and log lines about refused ones, both within a
    bound."""

    def __init__(self, clock: Clock) -> None:
        self._limit = LogLimit(clock)
        self._accepted: set[str] = set()

    def accepted(self, credential: str) -> None:
        """Note that a credential was accepted, by its id."""
        if credential and len(self._accepted) < MAX_ACCEPTED:
            self._accepted.add(credential)

    def take(self) -> list[str]:
        """Return the credentials that were accepted since the last call."""
        accepted, self._accepted = self._accepted, set()
        return sorted(accepted)

    def rejected(self, name: str, network: str) -> None:
        """Log that a name and a password, or a key, were refused. `name` is empty where it is no account's: it may be
        a password in the wrong field."""
        if (left_out := self._limit.admit()) is not None:
            message = "a login was refused: the name or the password is wrong"
            log.warning(LogEvent.LOGIN_REJECTED, message, account=name, network=network, **left_out)


class _Guesses:
    """The wrong passwords of one network for one account: a token bucket."""

    __slots__ = ("at_s", "left")

    def __init__(self, now_s: float) -> None:
        self.left = float(BURST)
        self.at_s = now_s

    def refill(self, now_s: float) -> None:
        self.left = min(self.left + (now_s - self.at_s) / REFILL_S, BURST)
        self.at_s = now_s

    def require(self) -> None:
        """Raise TooManyLogins where none is left."""
        if self.left < 1:
            raise TooManyLogins(retry_after_s=int((1 - self.left) * REFILL_S) + 1)


class LocalPasswordChecks:
    """The checks of the primary."""

    def __init__(
        self, clock: Clock, verified: VerifiedPasswords, revision: Callable[[], int], threads: Executor | None
    ) -> None:
        """`revision` returns the revision of the facts; `threads` compute the hashes, those of the loop by default."""
        self._clock = clock
        self._verified = verified
        self._revision = revision
        self._threads = threads
        self._key = b""
        """The key of digests of attempts, drawn with the first one."""
        self._turns = FairTurns()
        self._log = Logins(clock)
        self._failures: OrderedDict[bytes, tuple[float, int]] = OrderedDict()
        """Attempts that have failed, each with the time until which that counts and the revision of the facts."""
        self._guesses: OrderedDict[tuple[str, str], _Guesses] = OrderedDict()
        self._under_way: dict[bytes, asyncio.Task[Credential | None]] = {}

    async def check(self, attempt: Attempt, credentials: Sequence[Credential]) -> Credential | None:
        """Check a password as `PasswordChecks.check` says. Where a network has made too many guesses, the right
        password is refused too: else they would go on at no cost."""
        if len(attempt.password) > MAX_CHARACTERS or len(attempt.name) > MAX_NAME_CHARACTERS:
            return None
        if (guesses := self._guesses.get((attempt.name, attempt.network))) is not None:
            guesses.refill(self._clock.steady_s())
            guesses.require()
        if (known := known_credential(self._verified, attempt, credentials)) is not None:
            return known
        digest = self._digest(attempt)
        if self._has_failed(digest):
            return None
        task = self._under_way.get(digest)
        if task is None:
            self._throttle(attempt)
            task = asyncio.create_task(self._verify(attempt, digest, credentials))
            self._under_way[digest] = task
            task.add_done_callback(partial(self._ended, digest))
        return await asyncio.shield(task)

    def _ended(self, digest: bytes, task: "asyncio.Task[Credential | None]") -> None:
        del self._under_way[digest]
        if not task.cancelled():
            task.exception()  # its requests may all have gone

    async def _verify(self, attempt: Attempt, digest: bytes, credentials: Sequence[Credential]) -> Credential | None:
        revision, loop = self._revision(), asyncio.get_running_loop()
        async with self._turns.turn(attempt.network):
            for credential in credentials or (_DUMMY,):
                job = partial(verify_password, credential.secret, attempt.password)
                if await loop.run_in_executor(self._threads, job) and credential is not _DUMMY:
                    self._verified.add(credential, attempt.password)
                    self._guesses_of(attempt).left += 1
                    return credential
        self._log.rejected(attempt.name if credentials else "", attempt.network)
        self._failures[digest] = self._clock.steady_s() + FAILURE_S, revision
        if len(self._failures) > MAX_FAILURES:
            self._failures.popitem(last=False)
        return None

    def _digest(self, attempt: Attempt) -> bytes:
        """Return what stands for an attempt in memory. It includes the network: one client's failures are of no
        concern to another one."""
        self._key = self._key or self._clock.entropy(32)
        return blake3("\0".join(attempt).encode(), key=self._key).digest(16)

    def _has_failed(self, digest: bytes) -> bool:
        failure = self._failures.get(digest)
        return failure is not None and failure[0] > self._clock.steady_s() and failure[1] == self._revision()

    def _throttle(self, attempt: Attempt) -> None:
        """Count a guess, which is taken back where it was right. Raises TooManyLogins where the network has made too
        many for the account."""
        guesses = self._guesses_of(attempt)
        guesses.require()
        guesses.left -= 1

    def _guesses_of(self, attempt: Attempt) -> _Guesses:
        key, now_s = (attempt.name, attempt.network), self._clock.steady_s()
        guesses = self._guesses.setdefault(key, _Guesses(now_s))
        self._guesses.move_to_end(key)
        guesses.refill(now_s)
        if len(self._guesses) > MAX_THROTTLED:
            self._guesses.popitem(last=False)
        return guesses


class RelayedPasswordChecks:
    """The checks of a worker: the primary checks, which counts the guesses at all processes."""

    def __init__(self, relay: ProcessRelay, verified: VerifiedPasswords) -> None:
        self._relay = relay
        self._verified = verified

    async def check(self, attempt: Attempt, credentials: Sequence[Credential]) -> Credential | None:
        """Check a password as `PasswordChecks.check` says."""
        secret = b64encode(f"{attempt.name}:{attempt.password}".encode())
        status, _ = await token_of_primary(self._relay, attempt.network, b"Basic " + secret)
        return known_credential(self._verified, attempt, credentials) if status == 200 else None


def known_credential(
    verified: VerifiedPasswords, attempt: Attempt, credentials: Sequence[Credential]
) -> Credential | None:
    """Return the credential for which a password was verified already."""
    return next((one for one in credentials if verified.holds(one, attempt.password)), None)
