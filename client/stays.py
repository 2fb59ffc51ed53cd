"""What stays in the process that made it, as its connection does."""

from typing import NoReturn


class Stays:
    def __reduce__(self) -> NoReturn:
        """Asked by pickle, and so by whoever hands it to a spawned child."""
        raise TypeError("a client cannot be pickled: make one in the child, with the same addresses")
