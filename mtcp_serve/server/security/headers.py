"""Headers that tell browsers what not to do, on every response, whoever made it."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mtcp_serve.server.paths import STATIC, path_of

EVERYWHERE = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
}
"""Headers that do not depend on the response."""
_HSTS = "max-age=31536000"
_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_PAGE = (
    f"{_NOTHING}; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'"
)
_REFERENCE = (
    f"{_NOTHING}; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'"
)


def content_policy(path: str) -> str:
    """The Content-Security-Policy of a response at ``path``: what a page there may load and run.

    Swagger's page at ``/docs`` starts with a script in the page itself; it shows nothing but this server's
    own reference.
    """
    if path == "/":
        return _PAGE
    return _REFERENCE if path.startswith("/docs") else _NOTHING


class SecurityHeaders:
    """ASGI middleware that adds them; a header that the response has already is left as it is.

    Responses are not to be stored (maps show what somebody's image shows), static files may be.
    ``Strict-Transport-Security`` is sent over TLS only.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = path_of(scope)
        wanted = {**EVERYWHERE, "Content-Security-Policy": content_policy(path)}
        if not path.startswith(STATIC):
            wanted["Cache-Control"] = "no-store"
        if scope["scheme"] == "https":
            wanted["Strict-Transport-Security"] = _HSTS

        async def respond(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in wanted.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, respond)
