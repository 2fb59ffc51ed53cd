"""A steady load on the loan service that grants a loan with every second request: what must not be done twice.

    python examples/load_book.py --master tcp://127.0.0.1:7700,tcp://127.0.0.1:7710 --rate 200 --seconds 10

Its lines and its report are those of load.py. Request number N of the report is of `customer-N`: the service's book
shows what was granted to whom.
"""

from __future__ import annotations

import itertools
import sys
from concurrent.futures import Future
from typing import Any

from load import MONTHS, OK, TIMEOUT_S, WRONG, Load, Request, arguments, play

import rota


class Grant(Request):
    """Answered with the number of the loan."""

    __slots__ = ()

    def answered(self, answer: Any) -> None:
        self.outcome = OK if isinstance(answer, str) else WRONG


class Bank(Load):
    def send(self, due: float) -> None:
        number = len(self.requests)
        self.take((Grant if number % 2 else Request)(number, due))


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--master", help="control addresses; without it ROTA_MASTER, else tcp://127.0.0.1:7700")
    options = parser.parse_args()
    numbers = itertools.count()
    with rota.Client(*filter(None, [options.master])) as client:
        patient = client.options(timeout=TIMEOUT_S)

        def ask(request: Request) -> Future[Any]:
            number = next(numbers)
            if isinstance(request, Grant):
                return patient.submit("loans.book", f"customer-{number}", request.amount, MONTHS)
            return patient.submit("loans.quote", amount=request.amount, months=MONTHS)

        return play(Bank(ask, options.rate), options)


if __name__ == "__main__":
    sys.exit(main())
