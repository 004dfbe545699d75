"""TLS 1.2 and 1.3 from PEM files (RFC 5246, RFC 8446), with the application protocol `http/1.1` (RFC 7301).

The handshake asks a client for a certificate where there are authorities to verify it by, and never demands one: there
are clients that cannot answer. A certificate of other authorities ends the handshake. A resumed session would keep the
identity of an authority that was removed meanwhile, so there are none then: TLS 1.3, and no tickets.
"""

import ssl
from collections.abc import Callable
from typing import NamedTuple

from registry.settings.tls_files import TlsFiles

PROTOCOLS = ["http/1.1"]


class UnusableFile(Exception):
    """A file of TLS that cannot be used. The message is for the operator, and holds nothing of what is in the file."""


class Loaded(NamedTuple):
    """The contexts that were made of the files, and what the files say."""

    accepting: ssl.SSLContext | None
    """For connections that are accepted; None without a certificate."""
    connecting: ssl.SSLContext | None
    """For connections to other instances; None without authorities."""
    expires_s: float | None
    """The time since 1970 at which the certificate expires."""
    authorities: frozenset[bytes]
    """The certificates of those who sign those of the other side, in DER."""


def load(files: TlsFiles) -> Loaded:
    """Read the files. Raises UnusableFile."""
    expires_s = _expiry_s(files) if files.certificate else None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificates and names
    _set_up(context, files)
    authorities = frozenset[bytes]()
    if files.authorities:
        _use(files, "authorities", "certificate", lambda: context.load_verify_locations(files.authorities))
        authorities = frozenset(context.get_ca_certs(binary_form=True))
    accepting = _accepting(files) if files.certificate else None
    return Loaded(accepting, context if authorities else None, expires_s, authorities)


def _accepting(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _set_up(context, files)
    context.options |= ssl.OP_NO_RENEGOTIATION
    if files.authorities:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(files.authorities)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0
    return context


def _set_up(context: ssl.SSLContext, files: TlsFiles) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(PROTOCOLS)
    if files.certificate:
        _read(files, "key")  # OpenSSL does not say which of the two files it cannot read
        _use(
            files,
            "key",
            "private key",
            lambda: context.load_cert_chain(files.certificate, files.key, password=_refuse_passphrase),
        )


def _use(files: TlsFiles, kind: str, content: str, act: Callable[[], object]) -> None:
    """Let OpenSSL read a file."""
    try:
        act()
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            problem = f"it is not the key of {files.certificate} ({files.option('certificate')})"
        else:
            problem = f"it holds no {content} in PEM"
        raise _unusable(files, kind, problem) from None
    except OSError as error:
        raise _unusable(files, kind, error.strerror or str(error)) from None


def _refuse_passphrase() -> str:
    """Refuse an encrypted key. OpenSSL itself would ask for a passphrase on the terminal, and wait."""
    raise OSError("it is encrypted; expected a key without a passphrase")


def _read(files: TlsFiles, kind: str) -> bytes:
    try:
        with open(getattr(files, kind), "rb") as file:
            return file.read()
    except OSError as error:
        raise _unusable(files, kind, error.strerror or str(error)) from None


def _expiry_s(files: TlsFiles) -> float:
    from cryptography import x509  # it takes a moment to load, and most instances have no TLS of their own

    try:
        first = x509.load_pem_x509_certificates(_read(files, "certificate"))[0]
    except ValueError:
        raise _unusable(files, "certificate", "it holds no certificate in PEM") from None
    return first.not_valid_after_utc.timestamp()


def _unusable(files: TlsFiles, kind: str, problem: str) -> UnusableFile:
    return UnusableFile(f"the file {getattr(files, kind)} ({files.option(kind)}) cannot be used: {problem}")
