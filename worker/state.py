"""What an agent remembers over its own restart: the intent for its node and the highest epoch that it has seen."""

from __future__ import annotations

import json
import os
import sys

from ..common.messages import Intent

_FILE = "agent.json"


class State:
    """Without a directory it remembers nothing. `output`: where processes write, None for the system's own place."""

    def __init__(self, directory: str | None) -> None:
        """Raises OSError when the directory cannot be made or written to."""
        self.intent: Intent | None = None
        self.epoch = 0
        self.output: str | None = None
        self._directory = directory
        self._written: tuple[Intent, int] | None = None
        if directory is not None:
            self.output = os.path.join(directory, "output")
            os.makedirs(self.output, exist_ok=True)
            self._read(os.path.join(directory, _FILE))

    def remember(self, intent: Intent, epoch: int) -> None:
        """Durable when it returns."""
        if self._directory is None or self._written == (intent, epoch):
            return
        path = os.path.join(self._directory, _FILE)
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump({"intent": intent._asdict(), "epoch": epoch}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + ".new", path)
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        self._written = intent, epoch

    def _read(self, path: str) -> None:
        try:
            with open(path, encoding="utf-8") as file:
                data = json.load(file)
            self.intent, self.epoch = Intent(**data["intent"]), int(data["epoch"])
        except FileNotFoundError:
            pass
        except (ValueError, TypeError, KeyError) as error:
            # It was written whole or not at all, so somebody else wrote this. The master knows the intent too.
            print(f"{path} is not readable, starting without it: {error}", file=sys.stderr)
