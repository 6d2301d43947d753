"""Who may ask: hosts that are this machine, pages of this service, and elsewhere those who have the token."""

import hmac
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_COOKIE = "lab3_token"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)


class Guard:
    """Refuses what is not GET or HEAD, names another host or origin, or lacks the token where one is needed.

    A page elsewhere can have a browser ask a name that its owner lets point to 127.0.0.1; that name is in Host.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str], token: str | None) -> None:
        self._app, self._hosts, self._token = app, set(hosts), token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        refused = self._refuse(request)
        if refused is not None:
            await refused(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                headers = {**_HEADERS, "Content-Security-Policy": POLICY}
                message["headers"] += [
                    (name.lower().encode(), value.encode())
                    for name, value in headers.items()
                    if name.lower().encode() not in present
                ]
            await send(message)

        await self._app(scope, receive, send_guarded)

    def _refuse(self, request: Request) -> Response | None:
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("This service only shows.\n", 405, {"Allow": "GET, HEAD"})
        host = request.headers.get("host", "")
        if _name_of(host) not in self._hosts:
            return PlainTextResponse("This name is not one of the service's own; see --allow-host.\n", 421)
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return PlainTextResponse("Another page asked.\n", 403)
        if self._token is None or request.url.path == "/healthz":
            return None
        given = request.headers.get("authorization", "").removeprefix("Bearer ") or request.cookies.get(_COOKIE, "")
        if hmac.compare_digest(given.encode(), self._token.encode()):
            return None
        asked = request.query_params.get("token", "")
        if asked and hmac.compare_digest(asked.encode(), self._token.encode()):
            # The token goes on as a cookie, out of the address.
            response = PlainTextResponse("", 303, {"Location": request.url.path})
            response.set_cookie(_COOKIE, self._token, httponly=True, samesite="strict")
            return response
        return PlainTextResponse("This service needs its token: ?token=..., or Authorization: Bearer.\n", 401)


def _name_of(host: str) -> str:
    """Without the port.

    >>> _name_of("localhost:8000"), _name_of("[::1]:80")
    ('localhost', '[::1]')
    """
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].lower()
