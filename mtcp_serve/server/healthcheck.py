"""``python -m mtcp_serve.server.healthcheck``: whether this machine's server takes requests; exit 0 or 1.

The health check of the container images. Port and certificate are those of the environment (``MTCP_PORT``,
``MTCP_TLS_CERT``). Where clients need certificates (``MTCP_TLS_CLIENT_CA``), it only asks whether the port is
open.
"""

import http.client
import socket
import ssl
import sys
from contextlib import closing

from mtcp_serve.server.settings import Settings

_TIMEOUT_S = 3.0


def ready(settings: Settings) -> bool:
    """Whether ``GET /health/ready`` is answered 200 on the settings' port."""
    try:
        if settings.tls_client_ca is not None:
            socket.create_connection(("127.0.0.1", settings.port), _TIMEOUT_S).close()
            return True
        connection: http.client.HTTPConnection
        if settings.tls_cert is None:
            connection = http.client.HTTPConnection("127.0.0.1", settings.port, timeout=_TIMEOUT_S)
        else:
            trust = ssl.create_default_context(cafile=settings.tls_cert)
            trust.check_hostname = False  # the certificate is for the name that clients use
            trust.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it need not be its own authority
            connection = http.client.HTTPSConnection(
                "127.0.0.1", settings.port, timeout=_TIMEOUT_S, context=trust
            )
        with closing(connection):
            connection.request("GET", "/health/ready")
            return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False


if __name__ == "__main__":
    sys.exit(0 if ready(Settings()) else 1)
