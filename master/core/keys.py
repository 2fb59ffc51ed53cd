"""Idempotency keys: calls of one key are one call, whoever makes them.

The first call of a key makes an *attempt*: a request of its own, in a session of its own. All calls of the key, the
first too, wait for that and get what it ends with; afterwards it is recorded for a while. A key does not license a
second run: whether a lost attempt is made again is the handler's to say, as ever (docs/FAULTS.md, "Idempotency keys").
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from ...common import errors, wire
from .faults import fault_body
from .pool import NO_HANDLER, Request
from .sessions import Session

if TYPE_CHECKING:
    from .dispatch import Dispatch

Key = tuple[bytes, str]  # target, key: services have nothing to do with each other's keys

ATTACHED_MAX = 10_000  # calls that wait for what another has begun, each with up to 4 KiB of head
ENTRY_BYTES = 500  # of a recorded answer besides its body and key
MAYBE = errors.MaybeExecuted.code
# After these nothing has run, or it is not over: the next call of the key is like a first one.
NOT_RECORDED = frozenset(
    (
        errors.NOT_STARTED,
        errors.BindError.code,
        errors.Timeout.code,
        errors.Overloaded.code,
        errors.NoService.code,
        errors.NotExecuted.code,
        errors.Quarantined.code,
        errors.ProtocolError.code,
    )
)


class Attempt(Session):
    """Stands in for all callers of a key: the answer that is kept here is theirs.

    Its id is the first caller's, since processes and older masters know a request by that and its number.
    """

    __slots__ = ("callers", "digest", "key", "keys", "request")

    def __init__(self, keys: Keys, key: Key, digest: bytes, first: Request, now: float) -> None:
        super().__init__(first.session.id, now)
        self.epoch = first.session.epoch
        self.keys = keys
        self.key = key
        self.digest = digest
        self.callers: dict[Request, None] = {}
        self.request = _made_of(first, self)

    def keep(self, number: int, frame: wire.Frame, bytes_max: int) -> None:
        self.keys.ended(self, frame)

    def runs(self) -> bool:
        slot = self.request.slot
        return slot is not None and slot.inflight.get(self.request.delivery) is self.request


class Recorded(NamedTuple):
    digest: bytes  # of the arguments
    code: int
    time_us: int
    body: bytes
    until: float


class Keys:
    """Asked where a keyed request is admitted, where a caller gives up, and where an attempt ends without callers."""

    def __init__(self, dispatch: Dispatch) -> None:
        self.attempts: dict[Key, Attempt] = {}
        self.recorded: OrderedDict[Key, Recorded] = OrderedDict()  # the oldest first
        self.bytes = 0  # of what is recorded
        self._callers: dict[Request, Attempt] = {}
        self._dispatch = dispatch
        self._now = 0.0

    # ---- callers ---------------------------------------------------------------------------------

    def admit(self, request: Request, older: bool, now: float) -> None:
        """A request with a key. `older`: an older master may have run it."""
        self._now = now
        key = _key_of(request)
        if key is None:
            self._dispatch.counters["bad frames"] += 1
            return self._dispatch.fail(request, errors.ProtocolError.code, "it is to have a key, and its meta has none")
        digest = blake2b(request.frame[request.head_len :], digest_size=16).digest()
        attempt, recorded = self.attempts.get(key), self._fresh(key, now)
        known = attempt or recorded
        if known is not None and known.digest != digest:
            self._dispatch.counters["keys refused"] += 1
            cause = f"the key {key[1]!r} was used with other arguments before: take a new key for a new call"
            self._dispatch.fail(request, errors.Conflict.code, cause)
        elif attempt is not None:
            self._attach(request, attempt)
        elif recorded is not None and not (recorded.code == MAYBE and self._may_run_again(request)):
            self._dispatch.counters["keys answered"] += 1
            self._dispatch.finish(request, recorded.code, recorded.time_us, recorded.body, 0)
        else:
            self._forget(key)
            self._begin(Attempt(self, key, digest, request, now), request, older, now)

    def made_for(self, request: Request) -> Request:
        """What is run for this one: the attempt of its key, or itself."""
        attempt = self._callers.get(request)
        return request if attempt is None else attempt.request

    def leave(self, request: Request) -> bool:
        """Called when a caller gives up, or its deadline passes. False: it waited for no attempt."""
        attempt = self._callers.pop(request, None)
        if attempt is None:
            return False
        del attempt.callers[request]
        if not attempt.callers:
            self._abandon(attempt)
        return True

    def _begin(self, attempt: Attempt, request: Request, older: bool, now: float) -> None:
        self.attempts[attempt.key] = attempt
        self._wait_for(request, attempt)
        self._dispatch.inherited.look_up(attempt.request, older, now)

    def _attach(self, request: Request, attempt: Attempt) -> None:
        """One more caller for what is queued or runs already."""
        if len(self._callers) >= len(self.attempts) + ATTACHED_MAX:
            cause = f"{len(self._callers)} calls wait for attempts of their keys already"
            return self._dispatch.fail(request, errors.Overloaded.code, cause, 1000)
        self._dispatch.counters["keys attached"] += 1
        made = attempt.request
        made.deadline = max(made.deadline, request.deadline)
        made.answered = False  # if it was: all who had waited for it were gone
        self._wait_for(request, attempt)

    def _wait_for(self, request: Request, attempt: Attempt) -> None:
        request.frame = request.frame[: request.head_len]  # the attempt has the body
        self._callers[request] = attempt
        attempt.callers[request] = None

    def _may_run_again(self, request: Request) -> bool:
        target = self._dispatch.resolve(request.target())
        request.handler = NO_HANDLER if isinstance(target, str) else target[1]
        return request.may_run_again()

    # ---- attempts --------------------------------------------------------------------------------

    def ended(self, attempt: Attempt, frame: wire.Frame) -> None:
        """The attempt has an answer: it goes to all who wait, and on record. After a time-out what runs goes on."""
        head = wire.parse_head(frame)
        body = frame[head.head_len :]
        if not attempt.runs():
            self._over(attempt, head.code, head.time, body)
        callers, attempt.callers = attempt.callers, {}
        for request in callers:
            del self._callers[request]
            self._dispatch.finish(request, head.code, head.time, body, 0)

    def late(self, request: Request, code: int, time_us: int, frame: wire.Frame, head_len: int) -> None:
        """A reply when nobody waits any more: the next call of the key will want it."""
        if attempt := self._deserted(request):
            self._over(attempt, code, time_us, frame[head_len:])

    def lost(self, request: Request, cause: str) -> None:
        """Started and lost when nobody waits any more."""
        if attempt := self._deserted(request):
            self._over(attempt, MAYBE, 0, fault_body(cause))

    def not_started(self, request: Request) -> None:
        """It never ran, and need not: nobody waits for it."""
        if attempt := self._deserted(request):
            del self.attempts[attempt.key]

    def _deserted(self, request: Request) -> Attempt | None:
        """The attempt that this is the request of, if it is one that nobody waits for."""
        attempt = request.session
        return attempt if isinstance(attempt, Attempt) and self.attempts.get(attempt.key) is attempt else None

    def _abandon(self, attempt: Attempt) -> None:
        """Nobody waits for it: what runs goes on, what does not is dropped."""
        made = attempt.request
        if not attempt.runs():
            self._dispatch.withdraw(made)
            del self.attempts[attempt.key]
        made.answered = True
        made.tick.pop(made, None)

    def _over(self, attempt: Attempt, code: int, time_us: int, body: bytes) -> None:
        del self.attempts[attempt.key]
        keys_for = self._dispatch.settings_of(attempt.request).keys_for
        if code in NOT_RECORDED or not keys_for:
            return
        self.recorded[attempt.key] = Recorded(attempt.digest, code, time_us, body, self._now + keys_for)
        self.bytes += _size(attempt.key, body)
        while self.bytes > self._dispatch.settings.keys_bytes:
            self._dispatch.counters["keys dropped"] += 1
            self._forget(next(iter(self.recorded)))

    def status(self) -> dict[str, int]:
        return {"running": len(self.attempts), "recorded": len(self.recorded), "bytes": self.bytes}

    # ---- the record ------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """The oldest go when their time is over. Of services that keep them longer, what is behind waits its turn."""
        self._now = now
        while self.recorded:
            key, recorded = next(iter(self.recorded.items()))
            if recorded.until > now:
                return
            self._forget(key)

    def _fresh(self, key: Key, now: float) -> Recorded | None:
        recorded = self.recorded.get(key)
        return recorded if recorded is not None and recorded.until > now else None

    def _forget(self, key: Key) -> None:
        recorded = self.recorded.pop(key, None)
        if recorded is not None:
            self.bytes -= _size(key, recorded.body)


def _made_of(first: Request, attempt: Attempt) -> Request:
    """The request that is made for all callers of a key. It has no timer: its callers have theirs."""
    made = Request()
    made.session = attempt
    made.number = first.number
    made.frame = first.frame
    made.head_len = first.head_len
    made.target_len = first.target_len
    made.tail_at = first.tail_at
    made.epoch = first.epoch
    made.deadline = first.deadline
    made.queued_at = first.queued_at
    made.attempt = 0
    made.slot = None
    made.answered = False
    made.tick = {}
    return made


def _key_of(request: Request) -> Key | None:
    """None if its meta has no key."""
    key = request.text("k")
    return (request.target(), key) if key else None


def _size(key: Key, body: bytes) -> int:
    return ENTRY_BYTES + len(key[0]) + len(key[1]) + len(body)
