"""TLS and access control for the demo: an authority of its own, an administrator, a robot, and a public repository.

Secrets are in files of the demo's directory, which only its user can read, and never on the screen.
"""

import os
import secrets
import shlex
import ssl
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from registry.cli.access_offline import create_administrator
from registry.cli.accounts import API
from registry.cli.client import Trust, act
from registry.errors import CannotStart

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

ADMINISTRATOR, ROBOT = "root", "ci"
HOST = "127.0.0.1"
VALID = timedelta(days=365)
ENFORCED_TIMEOUT_S = 30.0

PASTE = """
Three instances, three sites, one registry, with TLS and access control:
  {addresses}

Name the directory with the certificate of the authority, the key of the robot ci and the login of the administrator:
  export DEMO={root}

Log in as ci, which may push to demo/* and public/*, push to one instance and pull from another:
  skopeo login --cert-dir $DEMO/certs --username ci --password-stdin 127.0.0.1:5001 < $DEMO/ci.key
  skopeo login --cert-dir $DEMO/certs --username ci --password-stdin 127.0.0.1:5002 < $DEMO/ci.key
  skopeo copy --dest-cert-dir $DEMO/certs docker-archive:IMAGE.tar docker://127.0.0.1:5001/demo/app:v1
  skopeo copy --dest-cert-dir $DEMO/certs docker-archive:IMAGE.tar docker://127.0.0.1:5001/public/app:v1
  skopeo inspect --cert-dir $DEMO/certs docker://127.0.0.1:5002/demo/app:v1

Without a login, public/* can be pulled:
  skopeo inspect --no-creds --cert-dir $DEMO/certs docker://127.0.0.1:5003/public/app:v1

Administer as root:
  export CONCORD_CA=$DEMO/certs/ca.crt CONCORD_LOGIN=$DEMO/root.login CONCORD_URL=https://127.0.0.1:5001
  {concord} login check
  {concord} status
  {concord} access list

podman takes --cert-dir too, and docker needs no certificate for 127.0.0.1:
  docker login --username ci --password-stdin 127.0.0.1:5001 < $DEMO/ci.key

{kept} Ctrl-C ends it.
"""


class Secured(NamedTuple):
    """The directory of a demo with TLS and access control."""

    root: Path

    @property
    def authority(self) -> Path:
        """The certificate of the authority, in a directory with no other files, as clients want it."""
        return self.root / "certs" / "ca.crt"

    @property
    def certificate(self) -> Path:
        return self.root / "tls" / "instances.crt"

    @property
    def key(self) -> Path:
        return self.root / "tls" / "instances.key"

    @property
    def robot_key(self) -> Path:
        return self.root / f"{ROBOT}.key"

    @property
    def login(self) -> Path:
        return self.root / f"{ADMINISTRATOR}.login"

    @property
    def environment(self) -> dict[str, str]:
        """The settings of instances."""
        return {
            "CONCORD_TLS_CERTIFICATE": str(self.certificate),
            "CONCORD_TLS_KEY": str(self.key),
            "CONCORD_PEER_TLS_CA": str(self.authority),
        }

    @property
    def context(self) -> ssl.SSLContext:
        """The settings of a client that trusts the authority."""
        return ssl.create_default_context(cafile=self.authority)

    def paste(self, addresses: str, concord: str, kept: str) -> str:
        """Return the lines that the demo prints."""
        return PASTE.format(addresses=addresses, concord=concord, kept=kept, root=shlex.quote(str(self.root.resolve())))


def prepare(root: Path, first: Path) -> Secured:
    """Make certificates, and the administrator in the data directory of the first instance, before any is started. A
    demo that is started again keeps its administrator. Raises CannotStart."""
    secured = Secured(root)
    for directory in (secured.authority.parent, secured.key.parent):
        directory.mkdir(parents=True, exist_ok=True)
    _make_certificates(secured)
    if not secured.login.exists():
        password = secrets.token_urlsafe(18)
        create_administrator(first, ADMINISTRATOR, password)
        _write_secret(secured.login, f"{ADMINISTRATOR}:{password}\n".encode())
    return secured


def establish(secured: Secured, urls: list[str], cluster_key: str) -> None:
    """Make the robot and the grants, and have access control enforced by all instances. Raises NoAnswer and
    CannotStart."""
    if secured.robot_key.exists():
        return
    Trust.authorities = secured.authority

    def do(path: str, **request: object) -> Any:
        return act(urls[0], API + path, request, [cluster_key])

    do("robot/create", name=ROBOT)
    key = do("key/create", account=ROBOT)["key"]
    for repositories in ("demo/*", "public/*"):
        do("grant", subject=ROBOT, repositories=repositories, rights=["pull", "push"])
    do("grant", subject="anonymous", repositories="public/*", rights=["pull"])
    do("enforce")
    _await_enforcement(secured, urls)
    _write_secret(secured.robot_key, key.encode())


def _await_enforcement(secured: Secured, urls: list[str]) -> None:
    deadline = time.monotonic() + ENFORCED_TIMEOUT_S
    for url in urls:
        while not _is_enforced(secured, url):
            if time.monotonic() > deadline:
                raise CannotStart(f"access control is not enforced at {url}")
            time.sleep(0.1)


def _is_enforced(secured: Secured, url: str) -> bool:
    """Return whether an instance asks for credentials."""
    try:
        with urllib.request.urlopen(f"{url}/v2/", timeout=5, context=secured.context):
            return False
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        return False


def _make_certificates(secured: Secured) -> None:
    """Write the certificate of a new authority, and one for all instances with its key. The authority's own key is
    dropped: it signs nothing else."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = _name("Concord demo authority")
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    signs = _key_usage(key_cert_sign=True, crl_sign=True)
    authority = _certificate(issuer, authority_key, issuer, authority_key, [(constraints, True), (signs, True)])
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST)), x509.DNSName("localhost")])
    extensions = [(names, False), (_key_usage(digital_signature=True), True)]
    certificate = _certificate(_name("Concord demo"), key, issuer, authority_key, extensions)
    secured.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    secured.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    _write_secret(
        secured.key,
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def _certificate(
    subject: "x509.Name",
    key: "EllipticCurvePrivateKey",
    issuer: "x509.Name",
    issuer_key: "EllipticCurvePrivateKey",
    extensions: "list[tuple[x509.ExtensionType, bool]]",
) -> "x509.Certificate":
    """Return a certificate (RFC 5280). Extensions come with whether they are critical."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + VALID)
    for extension, is_critical in (
        *extensions,
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False),
    ):
        builder = builder.add_extension(extension, is_critical)
    return builder.sign(issuer_key, hashes.SHA256())


def _name(text: str) -> "x509.Name":
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _key_usage(**used: bool) -> "x509.KeyUsage":
    from cryptography import x509

    kinds = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**(dict.fromkeys(kinds, False) | used))


def _write_secret(file: Path, content: bytes) -> None:
    """Write a file that only its owner can read."""
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(content)
