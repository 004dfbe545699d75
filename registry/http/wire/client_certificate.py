"""The certificate by which a client has identified itself in the handshake of TLS.

The handshake verifies it by the authorities of the listener, so a certificate that is here is valid. Other processes
relay a request together with it (`runtime.relay`).
"""

import ssl

from starlette.types import Scope

CLIENT_CERTIFICATE = "concord.client_certificate"
"""In the scope of a request on a connection whose client has presented a certificate: its subject, which may be
empty."""


def has_certificate(scope: Scope) -> bool:
    """Return whether the client has presented a certificate of the listener's authorities."""
    return CLIENT_CERTIFICATE in scope


def client_subject(scope: Scope) -> str | None:
    """Return the subject of the client's certificate, such as `CN=ci,O=Example` (RFC 4514); None where there is
    none."""
    return scope.get(CLIENT_CERTIFICATE) or None


def read_subject(tls: ssl.SSLObject | None) -> str | None:
    """Return the subject of the certificate that the other side of a connection has presented; None without one."""
    certificate = tls.getpeercert(binary_form=True) if tls is not None else None
    if certificate is None:
        return None
    from cryptography import x509  # it takes a moment to load, and few clients have certificates

    try:
        return x509.load_der_x509_certificate(certificate).subject.rfc4514_string()
    except ValueError:
        return ""  # the authority vouches for it, and it names no subject that could be compared
