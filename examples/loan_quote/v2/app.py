"""The loan service, version 2: the quote also says what the loan costs altogether. Same handlers, same arguments."""

import os
import time
import uuid
from decimal import Decimal
from pathlib import Path
from tempfile import gettempdir

import rota

VERSION = 2
BUREAU_S = 0.005  # how long the credit bureau, which is not part of this example, takes to answer
CENT = Decimal("0.01")
BOOK = Path(os.environ.get("LOANS_BOOK") or Path(gettempdir()) / "loans-book.txt")

loans = rota.Worker("loans")


@loans.handler(idempotent=True, timeout=5)
def quote(amount: Decimal, months: int, rate: Decimal = Decimal("4.9")) -> dict[str, object]:
    """What a loan costs a month and altogether; `rate` is percent a year. Asking twice does no harm: idempotent."""
    if not 1 <= months <= 480:
        raise ValueError(f"months must be from 1 to 480, not {months}")
    time.sleep(BUREAU_S)
    monthly = instalment(Decimal(amount), months, Decimal(rate))
    return {"version": VERSION, "amount": Decimal(amount), "monthly": monthly, "total": monthly * months}


@loans.handler
def book(ctx: rota.Context, customer: str, amount: Decimal, months: int) -> str:
    """Grant a loan and return its number. Twice would be two loans: the default, never run again once it started."""
    number = str(uuid.uuid4())
    with BOOK.open("a", encoding="utf-8") as lines:
        lines.write(f"{number} {customer} {amount} {months} version={VERSION} request={ctx.request_id}\n")
    return number


def instalment(amount: Decimal, months: int, rate: Decimal) -> Decimal:
    """The annuity, rounded to the cent."""
    monthly_rate = rate / 1200
    if not monthly_rate:
        return (amount / months).quantize(CENT)
    return (amount * monthly_rate / (1 - (1 + monthly_rate) ** -months)).quantize(CENT)


if __name__ == "__main__":
    loans.run()
