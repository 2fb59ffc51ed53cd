"""A basket that lives in the visitor's session: `rota run shop:create --factory --http 127.0.0.1:8080`."""

import logging
import os
from collections.abc import Iterator
from contextvars import ContextVar

from flask import Flask, Response, flash, redirect, render_template, request, session, stream_with_context, url_for

PRICES = {"apple": 30, "pear": 45, "quince": 90}

request_id = ContextVar("request_id", default="-")


def create() -> Flask:
    app = Flask(__name__)
    # The same in every process: one signs the session, another reads it.
    app.config["SECRET_KEY"] = os.environ.get("SHOP_SECRET_KEY", "only-for-this-example")
    app.config["SESSION_COOKIE_SAMESITE"] = "Lax"
    app.before_request(lambda: request_id.set(request.environ.get("rota.request_id", "-")) and None)
    app.add_url_rule("/", view_func=basket)
    app.add_url_rule("/add", view_func=add, methods=["POST"])
    app.add_url_rule("/basket.csv", view_func=export)
    app.add_url_rule("/process", view_func=process)
    app.add_url_rule("/broken", view_func=broken)
    app.register_error_handler(404, lambda error: (render_template("missing.html"), 404))
    return app


def basket() -> str:
    lines = session.get("basket", {})
    return render_template(
        "basket.html", prices=PRICES, basket=lines, total=sum(PRICES[x] * n for x, n in lines.items())
    )


def add() -> Response | tuple[str, int]:
    fruit = request.form.get("fruit", "")
    if fruit not in PRICES:
        return f"there is no {fruit or 'fruit'}\n", 400
    lines = session.setdefault("basket", {})
    lines[fruit] = lines.get(fruit, 0) + 1
    session.modified = True
    logging.getLogger(__name__).info("one %s more", fruit)
    flash(f"One {fruit} more.")
    return redirect(url_for("basket"))


def export() -> Response:
    """Line by line: the whole file is never in memory."""

    @stream_with_context
    def lines() -> Iterator[str]:
        yield "fruit,number,price\n"
        for fruit, number in session.get("basket", {}).items():
            yield f"{fruit},{number},{PRICES[fruit] * number}\n"

    return Response(lines(), mimetype="text/csv")


def process() -> Response:
    """Which process answers: it changes with each rolling update."""
    return Response(f"{os.getpid()}\n", mimetype="text/plain")


def broken() -> str:
    raise RuntimeError("this page is broken on purpose")


class RequestId(logging.Filter):
    """The id of the request, which the gateway's logs have too, in every line of the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True


_handler = logging.StreamHandler()
_handler.addFilter(RequestId())
logging.basicConfig(
    level=logging.INFO, handlers=[_handler], format="%(levelname)s %(request_id)s %(name)s: %(message)s"
)
