"""The pages of services, from their directories."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..common.log import note
from .core.pages import NONE, PAGE_MAX, BadPage, Pages, is_page


class ServicePages:
    """By service: read at the start, and when somebody says so."""

    def __init__(self, directories: Mapping[str, str]) -> None:
        """Raises BadPage: says of which service, which file, and why."""
        self._directories = directories
        self._pages: dict[str, Pages] = {}
        self._read()

    def of(self, service: str) -> Pages:
        return self._pages.get(service, NONE)

    def read_again(self) -> bool:
        """False: something is wrong with them; what was read before stays."""
        try:
            self._read()
        except BadPage as error:
            note(f"rota gateway: HUP: {error}; the pages stay as they were")
            return False
        return True

    def _read(self) -> None:
        self._pages = {service: _in_directory(service, directory) for service, directory in self._directories.items()}


def _in_directory(service: str, directory: str) -> Pages:
    try:
        names = sorted(filter(is_page, os.listdir(directory)))
        return Pages({name: _content(directory, name) for name in names})
    except OSError as error:
        where, why = error.filename or directory, error.strerror
        raise BadPage(f"the pages of {service}: {where} cannot be read: {why}") from None
    except BadPage as error:
        raise BadPage(f"the pages of {service}: {os.path.join(directory, str(error))}") from None


def _content(directory: str, name: str) -> bytes:
    path = os.path.join(directory, name)
    if not os.path.isfile(path):  # to open a FIFO would wait for ever
        raise BadPage(f"{name}: no file" if os.path.exists(path) else f"{name}: a link that leads nowhere")
    with open(path, "rb") as file:
        return file.read(PAGE_MAX + 1)
