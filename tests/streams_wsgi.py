"""A WSGI application that reads and answers piece by piece."""

import hashlib
import os
import resource
import threading
import time

CLOSED = "ROTA_TEST_CLOSED"  # names a file: what became of the iterables


def application(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    if path == "/missing":
        start_response("404 Not Found", [("Content-Length", "7")])
        return [b"missing"]
    if path == "/status":
        start_response(f"{query} Odd", [])
        return iter([b"in", b"pieces"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return globals()[path[1:]](environ, query)


def digest(environ, query):
    seen = hashlib.sha256()
    while piece := environ["wsgi.input"].read(100_000):
        seen.update(piece)
    return [seen.hexdigest().encode()]


def echo(environ, query):
    while piece := environ["wsgi.input"].read(50_000):
        yield piece


def slowly(environ, query):
    time.sleep(float(query))
    return digest(environ, query)


def ignore(environ, query):
    return [environ["CONTENT_LENGTH"].encode()]


def many(environ, query):
    block = bytes(range(256)) * 256
    for _ in range(int(query)):
        yield block


def peak(environ, query):
    return [str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss).encode()]


def half(environ, query):
    yield b"half"
    raise ValueError("in the middle")


def die(environ, query):
    yield b"half"
    time.sleep(0.2)  # its first half is on the wire
    os._exit(3)


def hang(environ, query):
    yield b"half"
    time.sleep(1000)


class events:
    """For ever, one each 10 ms; it notes how it ended."""

    def __init__(self, environ, query):
        self.first = True

    def __iter__(self):
        return self

    def __next__(self):
        if not self.first:
            time.sleep(0.01)
        self.first = False
        return b"event\n"

    def close(self):
        with open(os.environ[CLOSED], "a") as file:
            file.write("closed\n")


def file(environ, query):
    return environ["wsgi.file_wrapper"](open(query, "rb"))  # the wrapper closes it


def plain(environ, query):
    return [b"whole"]


meeting = threading.Barrier(3)


def meet(environ, query):
    """Answers when three requests are in it."""
    meeting.wait(10)
    yield b"met " + str(environ["wsgi.multithread"]).encode()


def pid(environ, query):
    return [str(os.getpid()).encode()]
