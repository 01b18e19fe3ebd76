"""The certificate and key that HTTPS and gRPC are served with, checked before the server starts."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtcp_serve.errors import SettingsError
from mtcp_serve.server.settings import Settings


@dataclass(frozen=True)
class Tls:
    """Files that have been checked: a certificate chain, its key, and the authorities of clients if any."""

    cert: Path
    key: Path
    password: str | None
    client_ca: Path | None

    @classmethod
    def of(cls, settings: Settings) -> "Tls | None":
        """What ``settings`` name; ``None`` if they name nothing.

        Raises:
            SettingsError: a file cannot be read or used, the key is not the certificate's, or it is encrypted
                and the password is missing or wrong.
        """
        if settings.tls_cert is None or settings.tls_key is None:
            return None
        password = settings.tls_key_password
        tls = cls(
            settings.tls_cert,
            settings.tls_key,
            None if password is None else password.get_secret_value(),
            settings.tls_client_ca,
        )
        tls._check()
        return tls

    def for_uvicorn(self) -> dict[str, Any]:
        """Arguments of ``uvicorn.Config``."""
        return {
            "ssl_certfile": self.cert,
            "ssl_keyfile": self.key,
            "ssl_keyfile_password": self.password,
            "ssl_ca_certs": self.client_ca,
            "ssl_cert_reqs": ssl.CERT_NONE if self.client_ca is None else ssl.CERT_REQUIRED,
        }

    def renew(self, context: ssl.SSLContext) -> None:
        """Have connections that come from now on through ``context`` meet these files."""
        context.load_cert_chain(self.cert, self.key, self.password)
        if self.client_ca is not None:
            context.load_verify_locations(self.client_ca)

    def for_grpc(self) -> tuple[bytes, bytes, bytes | None]:
        """Key, certificate chain and authorities, as gRPC takes them.

        Raises:
            SettingsError: the key is encrypted, which gRPC cannot read.
        """
        if self.password is not None:
            raise SettingsError(
                f"gRPC cannot read an encrypted key: serve {self.key} decrypted, or leave --grpc-port out"
            )
        authorities = None if self.client_ca is None else self.client_ca.read_bytes()
        return self.key.read_bytes(), self.cert.read_bytes(), authorities

    def _check(self) -> None:
        for path in filter(None, (self.cert, self.key, self.client_ca)):
            try:
                path.read_bytes()
            except OSError as error:
                raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
        asked = False

        def password() -> str:  # else OpenSSL would ask at the terminal
            nonlocal asked
            asked = True
            return self.password or ""

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.cert, self.key, password)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                fault = f"the key in {self.key} is not that of the certificate in {self.cert}"
            elif asked:
                fault = (
                    f"the key in {self.key} is encrypted, and MTCP_TLS_KEY_PASSWORD is "
                    f"{'wrong' if self.password else 'not set'}"
                )
            else:
                reason = error.reason or error
                fault = f"{self.cert} and {self.key} are not a PEM certificate and key: {reason}"
            raise SettingsError(fault) from error
        if self.client_ca is not None:
            try:
                context.load_verify_locations(self.client_ca)
            except ssl.SSLError as error:
                raise SettingsError(f"{self.client_ca} is not a PEM certificate") from error
