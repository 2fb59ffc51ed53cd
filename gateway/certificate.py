"""The certificate that a gateway shows, and its key: read and checked at the start, and again when somebody says so."""

from __future__ import annotations

import ssl

from ..common.log import note

_NO_PASSWORD = "is encrypted, and nobody is there to type its password: decrypt it with `openssl pkey`"


class BadCertificate(Exception):
    """Says which file, and why."""


class Certificate:
    """`context`: for connections from now on. Those that are there keep the one they began with."""

    def __init__(self, certificate: str, key: str | None, protocols: list[str]) -> None:
        """`certificate`: a file with it and with those that it depends on. `key`: None: it is in that file, too.
        `protocols`: of ALPN, the best one first. Raises BadCertificate.
        """
        self._files = certificate, key or certificate
        self._protocols = protocols
        self.context = _context(*self._files, protocols)

    def read_again(self) -> bool:
        """False: something is wrong with them; what was read before stays."""
        try:
            self.context = _context(*self._files, self._protocols)
        except BadCertificate as error:
            note(f"rota gateway: HUP: {error}; the certificate stays as it was")
            return False
        return True


def _context(certificate: str, key: str, protocols: list[str]) -> ssl.SSLContext:
    _check(certificate, b"-----BEGIN CERTIFICATE-----", "certificate")
    _check(key, b"PRIVATE KEY-----", "key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # it costs us more than the client
    context.set_alpn_protocols(protocols)

    def password() -> str:
        raise BadCertificate(f"the TLS key {key} {_NO_PASSWORD}")

    try:
        context.load_cert_chain(certificate, key, password)
    except OSError as error:  # mostly an SSLError; or a file that was there a moment ago is being replaced
        reason = getattr(error, "reason", None) or error.strerror or str(error)
        if reason == "KEY_VALUES_MISMATCH":
            raise BadCertificate(f"the TLS key {key} is not that of the certificate {certificate}") from None
        why = reason.replace("_", " ").lower()
        raise BadCertificate(f"the TLS certificate {certificate} with the key {key} cannot be used: {why}") from None
    return context


def _check(path: str, begin: bytes, what: str) -> None:
    try:
        with open(path, "rb") as file:
            data = file.read(1024 * 1024)
    except OSError as error:
        raise BadCertificate(f"the TLS {what} {path} cannot be read: {error.strerror}") from None
    if begin not in data:
        hint = "; --tls-key (http.tls_key) says in which file it is" if what == "key" else ""
        raise BadCertificate(f"the TLS {what} {path}: there is no {what} in PEM form in it{hint}")
