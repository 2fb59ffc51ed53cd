"""An application with `wsgiref.validate` around it: `python validated.py FOLDER MODULE:ATTRIBUTE [--factory]`.

It asks some requests as a gateway does, and prints their statuses. What the validator finds ends it with a traceback.
"""

import sys
from importlib import import_module
from wsgiref.validate import validator

from hosting_rig import answer_of, request

from rota.worker import wsgi
from rota.worker.hosting import SyncHost

HOST = [b"host", b"shop.example"]
FORM = [HOST, [b"content-type", b"application/x-www-form-urlencoded"]]


def main() -> None:
    folder, spec = sys.argv[1:3]
    sys.path.insert(0, folder)
    module, _, attribute = spec.partition(":")
    application = getattr(import_module(module), attribute)
    if "--factory" in sys.argv:
        application = application()
    host = SyncHost(wsgi.worker(validator(application), "site"))
    for method, target, headers, body in [
        ("GET", b"/", [HOST, [b"cookie", b"a=1"]], b""),
        ("HEAD", b"/?page=2", [HOST], b""),
        ("GET", b"/notes.csv", [HOST], b""),
        ("GET", b"/basket.csv", [HOST], b""),
        ("POST", b"/add", FORM, b"fruit=pear"),
        ("POST", b"/", FORM, b"text=milk"),
        ("DELETE", b"/process", [HOST], b""),
    ]:
        print(method, target.decode(), answer_of(host.run(request(method, target, headers, body))).status)


if __name__ == "__main__":
    main()
