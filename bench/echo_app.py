"""The service that the bench calls: it gives back what it gets, takes time without CPU, or answers at length."""

import time

import rota

service = rota.Worker("echo")


@service.handler
def echo(data: bytes) -> bytes:
    return data


@service.handler
def nap(seconds: float) -> None:
    time.sleep(seconds)


@service.handler
def blob(size: int) -> bytes:
    return bytes(size)
