"""A view of the facts of access control in a file, which tests write: the same in all processes of an instance.

`prepare` makes a process that the tests start decide by the file that CONCORD_TEST_ACCESS names, instead of by facts.
"""

import json
import os
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path

import registry.app
import registry.runtime.worker_service
from registry.access.bindings import Binding
from registry.access.keys import key_hash, new_key
from registry.access.passwords import hash_password
from registry.access.rights import Caller, Credential, CredentialKind, Right

VARIABLE = "CONCORD_TEST_ACCESS"


class Facts:
    """The facts of a test: written as a whole at each change, so that no process reads half of them."""

    def __init__(self, path: Path, enforced: bool = True) -> None:
        self.path = path
        self.state: dict = {"revision": 0, "enforced": enforced, "accounts": {}, "grants": []}
        self.write()

    def write(self) -> None:
        self.state["revision"] += 1
        with tempfile.NamedTemporaryFile("w", dir=self.path.parent, delete=False) as file:
            json.dump(self.state, file)
        os.replace(file.name, self.path)

    def account(self, name: str, password: str | None = None, certificate: str | None = None) -> str:
        """Make an account, and return its id."""
        account = f"id-of-{name}-{self.state['revision']}"
        self.state["accounts"][account] = {"name": name, "blocked": False, "credentials": []}
        if password is not None:
            self.credential(account, CredentialKind.PASSWORD, hash_password(password))
        if certificate is not None:
            self.credential(account, CredentialKind.CERTIFICATE, certificate)
        self.write()
        return account

    def credential(self, account: str, kind: CredentialKind, secret: str, expires_ms: int | None = None) -> str:
        credential = f"credential-{self.state['revision']}"
        self.state["accounts"][account]["credentials"].append([credential, kind, secret, expires_ms])
        self.write()
        return credential

    def bind(self, account: str, issuer: str, expires_ms: int | None = None, **claims: str) -> str:
        """Bind an account to an identity provider, and return the binding's id."""
        binding = f"binding-{self.state['revision']}"
        bindings = self.state["accounts"][account].setdefault("bindings", [])
        bindings.append([binding, issuer, claims, expires_ms])
        self.write()
        return binding

    def unbind(self, account: str) -> None:
        """End the bindings of an account."""
        self.state["accounts"][account]["bindings"] = []
        self.write()

    def robot(self, name: str, expires_ms: int | None = None) -> str:
        """Make an account with a key, and return the key."""
        text, hashed = new_key(os.urandom(20))
        self.credential(self.account(name), CredentialKind.KEY, hashed, expires_ms)
        assert key_hash(text) == hashed
        return text

    def password(self, account: str, password: str) -> None:
        """Replace the credentials of an account."""
        self.state["accounts"][account]["credentials"] = []
        self.credential(account, CredentialKind.PASSWORD, hash_password(password))

    def grant(self, subject: str, pattern: str, *rights: str, expires_ms: int | None = None) -> None:
        """Grant rights to an account's id, `anonymous` or `authenticated`."""
        self.state["grants"].append([subject, pattern, list(rights), expires_ms])
        self.write()

    def revoke(self, subject: str) -> None:
        self.state["grants"] = [grant for grant in self.state["grants"] if grant[0] != subject]
        self.write()

    def block(self, account: str, is_blocked: bool = True) -> None:
        self.state["accounts"][account]["blocked"] = is_blocked
        self.write()

    def enforce(self, is_enforced: bool = True) -> None:
        self.state["enforced"] = is_enforced
        self.write()


class FileView:
    """The `AccessView` of a file."""

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._state: dict = {}

    def _now(self) -> dict:
        found = os.stat(self._path)
        if (found.st_ino, found.st_mtime_ns) != self._stamp:
            self._stamp = found.st_ino, found.st_mtime_ns
            self._state = json.loads(Path(self._path).read_text())
        return self._state

    @property
    def revision(self) -> int:
        return self._now()["revision"]

    is_awaited = False

    @property
    def is_enforced(self) -> bool:
        return self._now()["enforced"]

    def _in_force(self, account: str) -> dict | None:
        found = self._now()["accounts"].get(account)
        return found if found is not None and not found["blocked"] else None

    def account_of(self, name: str) -> str | None:
        accounts = self._now()["accounts"]
        return next((one for one in accounts if accounts[one]["name"] == name and self._in_force(one)), None)

    def credentials_of(self, account: str) -> list[Credential]:
        found = self._in_force(account)
        return (
            [Credential(id, account, CredentialKind(kind), *rest) for id, kind, *rest in found["credentials"]]
            if found
            else []
        )

    def bindings_of(self, account: str) -> list[Binding]:
        found = self._in_force(account)
        return [Binding(id, account, found["name"], *rest) for id, *rest in found.get("bindings", [])] if found else []

    def bindings_to(self, issuer: str) -> list[Binding]:
        every = [one for account in self._now()["accounts"] for one in self.bindings_of(account)]
        return [one for one in every if one.issuer == issuer]

    def certificate(self, subject: str) -> Credential | None:
        every = [one for account in self._now()["accounts"] for one in self.credentials_of(account)]
        certificates = (one for one in every if one.kind is CredentialKind.CERTIFICATE)
        return next((one for one in certificates if one.secret == subject), None)

    def is_in_force(self, account: str, credential: str) -> bool:
        return any(one.id == credential for one in (*self.credentials_of(account), *self.bindings_of(account)))

    def rights(self, caller: Caller, repository: str, now_ms: int) -> dict[Right, int | None]:
        subjects = {"anonymous"}
        if caller.account and self._in_force(caller.account) is not None:
            subjects |= {"authenticated", caller.account}
        rights: dict[Right, int | None] = {}
        for subject, pattern, granted, expires_ms in self._now()["grants"]:
            is_over = expires_ms is not None and expires_ms <= now_ms
            if subject not in subjects or is_over or not fnmatchcase(repository, pattern):
                continue
            for right in Right if "admin" in granted else map(Right, granted):
                bound = rights.get(right, 0)
                rights[right] = None if bound is None or expires_ms is None else max(bound, expires_ms)
        return rights

    def may_see_any(self, caller: Caller, now_ms: int) -> bool:
        subjects = {"anonymous"} | ({"authenticated", caller.account} if caller.account else set())
        return any(subject in subjects for subject, *_ in self._now()["grants"])


def prepare() -> None:
    """Have this process, and those it forks, decide by the file."""
    path = os.environ[VARIABLE]
    registry.app.access_view = lambda database: FileView(path)
    registry.runtime.worker_service.access_view = lambda database: FileView(path)
