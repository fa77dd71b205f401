"""What every request passes: the token where one is set, and the check that no other site's page sent it."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hierderm.errors import ConfigError

LEAST_TOKEN = 16  # characters
GENERATION = "Index-Generation"  # by which the page notices that the index has changed
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_SAFE = ("GET", "HEAD", "OPTIONS")


def check_token(token: str) -> str:
    """The token; ConfigError where it is too short to be safe, or can't be typed into a password field."""
    if len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"the token must have at least {LEAST_TOKEN} ASCII characters and no spaces, got {len(token)} characters. "
            "Make one: python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return token


class Guard:
    """Refuses requests without the token and those of other sites; gives each response its security headers.

    Args:
        app: The application that is guarded.
        token: What clients must send, as the password of HTTP Basic (which browsers ask for and then send with each
            request) or as a Bearer token; '' for none.
        generation: Names the state of the index that is served.
    """

    def __init__(self, app: ASGIApp, token: str, generation: Callable[[], str]) -> None:
        self._app, self._token, self._generation = app, token, generation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                if scope["path"].startswith("/api/"):
                    headers.update({"Cache-Control": "no-store", GENERATION: self._generation()})
            await send(message)

        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        if scope["method"] not in _SAFE and _cross_site(headers):
            reason = "the request must come from this page or from a program, it comes from a page of another site."
            return JSONResponse({"error": reason}, 403)
        if self._token and not secrets.compare_digest(_sent_token(headers), self._token.encode()):
            asks = {"WWW-Authenticate": 'Basic realm="hierderm", charset="UTF-8"'}
            reason = "this server asks for a token: send it as the password (any user name) or as a Bearer token."
            return JSONResponse({"error": reason}, 401, headers=asks)
        return None


def _cross_site(headers: Headers) -> bool:
    """Whether a browser says that a page of another origin sent the request; programs send neither header."""
    if site := headers.get("sec-fetch-site"):
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host", "")


def _sent_token(headers: Headers) -> bytes:
    scheme, _, sent = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return sent.strip().encode()
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(sent, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""
