"""What all HTTP servers of the bench serve, as a WSGI and as an ASGI application.

GET /, and whatever else: hello. POST: what was sent. GET /cpu: 2 ms of CPU.
GET /bytes?N (WSGI): so many bytes.
"""

import time

CPU_S = 0.002
HELLO = b"hello, world\n"


def wsgi(environ, start_response):
    if environ["REQUEST_METHOD"] == "POST":
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    elif environ["PATH_INFO"] == "/cpu":
        body = busy()
    elif environ["PATH_INFO"] == "/bytes":
        body = bytes(int(environ["QUERY_STRING"]))
    else:
        body = HELLO
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    if scope["method"] == "POST":
        body, more = b"", True
        while more:
            message = await receive()
            body += message["body"]
            more = message.get("more_body", False)
    else:
        body = busy() if scope["path"] == "/cpu" else HELLO
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def busy() -> bytes:
    """CPU time, not wall time: it costs the same however many others want the core."""
    until = time.thread_time() + CPU_S
    while time.thread_time() < until:
        pass
    return HELLO
