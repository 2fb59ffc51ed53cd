"""Quotes, uploads, events and a chat with itself: `rota run desk:app --http 127.0.0.1:8080`."""

import asyncio
import hashlib
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request, UploadFile, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from starlette.types import ASGIApp, Receive, Scope, Send

PRICES = {"ACME": 12.5, "INITECH": 3.25}

log = logging.getLogger(__name__)
request_id = ContextVar("request_id", default="-")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Once in each process: what all of its requests share is opened here, a pool of database connections say."""
    yield {"prices": PRICES.copy()}


class RequestId:
    """The id of the request, which the gateway's logs have too, in every line of the log."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id.set(scope.get("extensions", {}).get("rota", {}).get("request_id", "-"))
        await self.app(scope, receive, send)


app = FastAPI(title="Desk", lifespan=lifespan)
app.add_middleware(RequestId)


class Order(BaseModel):
    symbol: str
    quantity: Annotated[int, Field(gt=0, le=1000)]


class Quote(BaseModel):
    symbol: str
    price: float


@app.post("/quotes", status_code=201)
async def quote(order: Order, request: Request) -> Quote:
    price = request.state.prices.get(order.symbol)
    if price is None:
        raise HTTPException(404, f"there is no {order.symbol}")
    log.info("%d %s", order.quantity, order.symbol)
    return Quote(symbol=order.symbol, price=price * order.quantity)


@app.post("/uploads", status_code=201)
async def upload(file: UploadFile) -> dict[str, str | int | None]:
    """Piece by piece: a large file is on disk, not in memory."""
    digest, size = hashlib.sha256(), 0
    while piece := await file.read(65_536):
        digest.update(piece)
        size += len(piece)
    return {"name": file.filename, "size": size, "sha256": digest.hexdigest()}


@app.get("/ticks")
async def ticks(request: Request, count: int = 3) -> StreamingResponse:
    """Server-sent events."""

    async def events() -> AsyncIterator[str]:
        for number in range(count):
            yield f"id: {number}\ndata: {request.state.prices['ACME'] + number}\n\n"
            await asyncio.sleep(0.01)

    return StreamingResponse(events(), media_type="text/event-stream")


@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(f"you said: {await websocket.receive_text()}")
    except WebSocketDisconnect:
        pass


@app.get("/process")
async def process() -> int:
    """Which process answers: it changes with each rolling update."""
    return os.getpid()


@app.get("/broken")
async def broken() -> None:
    raise RuntimeError("this page is broken on purpose")


def _with_request_id(record: logging.LogRecord) -> bool:
    record.request_id = request_id.get()
    return True


_handler = logging.StreamHandler()
_handler.addFilter(_with_request_id)
logging.basicConfig(
    level=logging.INFO, handlers=[_handler], format="%(levelname)s %(request_id)s %(name)s: %(message)s"
)
