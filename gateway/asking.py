"""From the head of a request to the call of the service that it is for."""

from __future__ import annotations

from secrets import token_hex
from typing import TYPE_CHECKING, Any

from ..client.aio import AsyncClient
from ..common.body import pack
from ..common.limits import TIMEOUT_MAX_S
from .core import calls
from .core.answers import Answer
from .core.handshake import Handshake, Improper, asked
from .core.head import Head
from .core.plain import Plain
from .core.requests import Origin, Proxies, key_of, keyed, request_id, trace_of
from .core.routes import Route, route_to
from .core.upload import Spool, contents
from .protocol import HttpProtocol
from .request import CallRequest, Request

if TYPE_CHECKING:
    from .server import Asker, Gateway, Start
    from .websocket import Socket

READY = b"/-/ready"
UPLOAD_RATE = 4 * 1024 * 1024  # bytes a second at which an application must take its body: a tenth of what goes through
WHOLE_MAX = 64 * 1024 * 1024  # of a body that must go with its call: no message may be larger
_OWN = b"/-/"  # what a gateway answers itself begins with it
_SAYING_MORE = frozenset(b"upgrade x-request-id traceparent idempotency-key".split())  # than arguments for a service


class Asking:
    """Which service, which of its handlers, and with what."""

    def __init__(self, gateway: Gateway, start: Start, proxies: Proxies) -> None:
        self._gateway = gateway
        self._settings = start.settings
        self._routes = start.routes
        self._callable = {name: route_to(name, "", each) for name, each in start.services.items() if each.calls}
        self._client = gateway.client
        self._proxies = proxies
        self._socket = _sockets()

    def take(self, connection: Asker, head: Head, body: bytes | Spool, now: float) -> Answer | None:
        """The answer, or None when a service has been asked for it: it then has the body."""
        peer = connection.peer
        if peer.trusted or type(body) is not bytes:
            return self._take_more(connection, head, body, now)
        plain = head.plain or self._plain(head)
        if plain is None:
            return self._take_more(connection, head, body, now)
        request = Request(self._gateway, connection, head, now, plain.route)
        request.plain = plain
        request.id = known_as = self._gateway.new_id()
        self._client.begin(request, plain.address, plain.call(body, peer, known_as.encode()), now)
        if request.answer is None:
            connection.request = request
        return request.answer

    def _plain(self, head: Head) -> Plain | None:
        """None: there is more to it than arguments for a service."""
        route = self._routes.find(head.host, head.target)
        fields = head.headers
        if route is None or route.affinity is not None or head.target.startswith(_OWN):
            return None
        if not fields.packed:
            if fields.names & _SAYING_MORE:
                return None
            fields.packed = pack(self._proxies.passed_on(fields, trusted=False))
        address = self._client.address(route.target(head.method))
        head.plain = plain = Plain(head, route, address, fields.packed)
        return plain

    def _take_more(self, connection: Asker, head: Head, body: bytes | Spool, now: float) -> Answer | None:
        """`take`, of any request."""
        if head.target.startswith(_OWN):
            if head.target.partition(b"?")[0] == READY:
                return self._gateway.ready()
            if head.target.startswith(calls.PREFIX):
                return self._call(connection, head, body, now)
        peer = connection.peer
        origin = self._proxies.origin(peer, head) if peer.trusted else Origin(peer.client, peer.scheme, head.host)
        route = self._routes.find(origin.host, head.target)
        fields = head.headers
        handshake = self._handshake(head) if b"upgrade" in fields.names else None
        if isinstance(handshake, Handshake) and self._socket is not None:
            assert isinstance(connection, HttpProtocol)  # HTTP/2 has no Upgrade
            request: Request = self._socket(self._gateway, connection, head, now, route, handshake)
        else:
            request = Request(self._gateway, connection, head, now, route)
        request.id = request_id(fields, self._gateway.new_id)
        request.client = origin.client[0]
        if route is None:
            return request.refuse(404, "There is nothing here.")
        if isinstance(handshake, Improper):
            return request.refuse(*handshake)
        about = about_of(request.id, head, origin, route, peer.server)
        passed = self._proxies.passed_on(fields, peer.trusted)
        client, passed = self._said(request, route, passed, about)
        said: Any = body
        handler = route.target(head.method)
        if handshake is not None:
            about["scheme"] = "wss" if about["scheme"] == "https" else "ws"
            about["subprotocols"] = handshake.subprotocols
            handler, said = route.socket_handler, None
        elif not isinstance(body, bytes):
            if client.keyed:
                said = self._whole(request, body)
            else:
                said = request.brings(body)
                longer = self._settings.timeout + body.size / UPLOAD_RATE
                client = client.options(timeout=min(longer, TIMEOUT_MAX_S))
            if isinstance(said, Answer):
                return said
        client.start(request, handler, head.method, head.target, passed, said, about)
        if request.answer is None:
            connection.request = request
        return request.answer

    def _whole(self, request: Request, body: Spool) -> bytes | Answer:
        """Of a request with a key, which must come as one message each time; or why that cannot be."""
        if body.size > WHOLE_MAX:
            sentence = "A request with an Idempotency-Key must fit into one message (master.max_message)."
            return request.refuse(413, sentence)
        try:
            return contents(body)
        except OSError as error:  # the disk that it was spooled to
            self._gateway.fault(request, 503, error)
            return request.refuse(503, "The request could not be kept; nothing was done. Try again shortly.")

    def _handshake(self, head: Head) -> Handshake | Improper | None:
        found = asked(head)
        if self._socket is not None or not isinstance(found, Handshake):
            return found
        self._gateway.tell("a WebSocket was refused, since wsproto is not there: pip install 'rota[http]'")
        return Improper(501, "This gateway takes no WebSockets.")

    def _said(
        self, request: Request, route: Route, passed: list[list[bytes]], about: dict[str, Any]
    ) -> tuple[AsyncClient, list[list[bytes]]]:
        """The client with what is said beside the arguments: the trace, the session, and the key if there are keys; and
        the headers that go with that.
        """
        fields, session = request.head.headers, ""
        headers, key = trace_of(fields), key_of(fields) if route.keys and type(request) is Request else ""
        if route.affinity is not None:
            session, request.cookie = route.affinity.session(fields, route.root, about["scheme"], token_hex)
        if key:
            headers["x-request-id"] = about["id"]
            passed = keyed(passed, about)
        if not headers and not session:
            return self._client, passed
        return self._client.options(headers=headers, idempotency_key=key, session=session), passed

    def _call(self, connection: Asker, head: Head, body: bytes | Spool, now: float) -> Answer | None:
        request = CallRequest(self._gateway, connection, head, now, None)
        request.id = request_id(head.headers, self._gateway.new_id)
        if connection.peer.trusted:
            request.client = self._proxies.origin(connection.peer, head).client[0]
        try:
            size, most = len(body) if isinstance(body, bytes) else body.size, self._settings.max_call
            if size > most:
                raise calls.Refused(413, f"The body of a call has {most} bytes at most (http.max_call).")
            call = calls.asked(head, body if isinstance(body, bytes) else contents(body), self._callable)
            request.route = call.route
            client = self._client.options(
                timeout=min(call.timeout or self._settings.timeout, self._settings.timeout),
                idempotency_key=call.key,
                headers=call.headers | {"x-request-id": request.id},
            )
            client.start(request, call.target, *call.args, **call.kwargs)
        except calls.Refused as refused:
            return request.turned_away(refused)
        except OSError as error:  # the disk that it was spooled to
            self._gateway.fault(request, 503, error)
            return request.turned_away(calls.Refused(503, "The call could not be kept; nothing was done."))
        except TypeError as error:  # what has no place on the wire: more than 64 bits, half a character
            return request.turned_away(calls.Refused(400, f"The call cannot be made: {error}."))
        if request.answer is None:
            connection.request = request
        return request.answer


def about_of(known_as: str, head: Head, origin: Origin, route: Route, server: list[Any]) -> dict[str, Any]:
    """The last argument of docs/HTTP.md, in its order, by which a process knows calls that come again."""
    return {
        "version": head.version,
        "root": route.root,
        "scheme": origin.scheme,
        "server": server,
        "client": origin.client,
        "id": known_as,
    }


def _sockets() -> type[Socket] | None:
    """None: wsproto is not installed (the extra `http`)."""
    try:
        from .websocket import Socket
    except ImportError:
        return None
    return Socket
