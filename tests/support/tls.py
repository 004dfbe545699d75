"""Certificates, by authorities of the tests' own."""

import datetime
import ssl
from pathlib import Path
from typing import NamedTuple

import trustme
from cryptography import x509


class Certificate(NamedTuple):
    """A certificate and its key, in files."""

    certificate: Path
    key: Path

    def settings(self, prefix: str = "tls") -> dict[str, str]:
        """Return the settings of an instance that presents it."""
        return {f"{prefix}_certificate": str(self.certificate), f"{prefix}_key": str(self.key)}

    @property
    def parsed(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.certificate.read_bytes())

    @property
    def serial(self) -> int:
        return self.parsed.serial_number

    def replace(self, other: "Certificate") -> None:
        """Put another one in its place, as tools do: file by file."""
        for old, new in zip(self, other, strict=True):
            part = old.with_suffix(".part")
            part.write_bytes(new.read_bytes())
            part.rename(old)


class Authority:
    """An authority that signs certificates, and whose own is in a file."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        directory.mkdir(exist_ok=True)
        self._directory, self._name, self._issued = directory, name, 0
        self._ca = trustme.CA(organization_name=name)
        self.file = directory / f"{name}.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def issue(
        self, *hosts: str, subject: str | None = None, expires: datetime.datetime | None = None, rsa: bool = False
    ) -> Certificate:
        """Sign a certificate, for 127.0.0.1 unless others are named."""
        kind = trustme.KeyType.RSA if rsa else trustme.KeyType.ECDSA
        made = self._ca.issue_cert(*(hosts or ("127.0.0.1",)), common_name=subject, not_after=expires, key_type=kind)
        self._issued += 1
        files = [self._directory / f"{self._name}-{self._issued}.{ending}" for ending in ("crt", "key")]
        files[0].write_bytes(b"".join(part.bytes() for part in made.cert_chain_pems))
        made.private_key_pem.write_to_path(str(files[1]))
        return Certificate(*files)

    def context(self, own: Certificate | None = None) -> ssl.SSLContext:
        """Return the context of a client that trusts this authority, and presents a certificate if it has one."""
        context = ssl.create_default_context(cafile=str(self.file))
        if own is not None:
            context.load_cert_chain(own.certificate, own.key)
        return context
