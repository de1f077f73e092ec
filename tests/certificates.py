"""Certificates for tests: an authority of its own, and certificates that it signs, as PEM files."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key."""

    cert: Path
    key: Path
    both: Path
    """One file with both, as Java's PEM key store reads it."""


class Authority:
    """A private certificate authority whose files are in one folder."""

    def __init__(self, folder: Path, name: str = "authority of the test") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signed = self._certificate(self._name, self._key.public_key(), x509.BasicConstraints(ca=True, path_length=0))
        self.file = folder / "ca.pem"
        self.file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def certificate(self, name: str, *hosts: str, days_left: float = 2.0) -> Certificate:
        """A certificate for these host names, and for 127.0.0.1 when it has any; it began a day ago."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
        if hosts:
            names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        more = [x509.SubjectAlternativeName(names)] if names else []
        kind = x509.BasicConstraints(ca=False, path_length=None)
        signed = self._certificate(subject, key.public_key(), kind, *more, days_left=days_left)
        cert_pem = signed.public_bytes(serialization.Encoding.PEM)
        key_pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        made = Certificate(*(self._folder / f"{name}.{end}" for end in ("crt", "key", "pem")))
        made.cert.write_bytes(cert_pem)
        made.key.write_bytes(key_pem)
        made.both.write_bytes(key_pem + cert_pem)
        for path in (made.key, made.both):
            path.chmod(0o600)
        return made

    def _certificate(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        *extensions: x509.ExtensionType,
        days_left: float = 2.0,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=days_left))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        authority = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority), critical=False
        )
        return builder.sign(self._key, hashes.SHA256())
