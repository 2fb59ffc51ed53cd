"""The id of the request, which the gateway's logs have too, in every line of the log."""

from collections.abc import Callable
from contextvars import ContextVar
from logging import LogRecord

from django.http import HttpRequest, HttpResponse

request_id = ContextVar("request_id", default="-")


class RequestId:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request_id.set(request.META.get("rota.request_id", "-"))
        return self.get_response(request)


def with_request_id() -> Callable[[LogRecord], bool]:
    def fill(record: LogRecord) -> bool:
        record.request_id = request_id.get()
        return True

    return fill
