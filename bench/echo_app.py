"""The service that the bench calls: it gives back what it gets."""

import rota

service = rota.Worker("echo")


@service.handler
def echo(data: bytes) -> bytes:
    return data
