"""What long work tells those who watch it."""

from typing import Protocol


class Progress(Protocol):
    """A stage of so many steps begins, None where nobody knows; so many steps of it are done."""

    def start(self, what: str, total: int | None) -> None:
        """Begin a stage."""

    def advance(self, steps: int, bad: int = 0) -> None:
        """Count steps of it, and how many of them came to nothing."""

    def note(self, text: str) -> None:
        """Say what is worth knowing before the work goes on."""


class Watch(Progress, Protocol):
    """Progress of work of which there is more to say than how much is done."""

    def show(self, text: str) -> None:
        """Show how it goes, until there is news."""


class Silent:
    """Progress that nobody watches."""

    def start(self, what: str, total: int | None) -> None:
        """Begin a stage."""

    def advance(self, steps: int, bad: int = 0) -> None:
        """Count steps of it, and how many of them came to nothing."""

    def note(self, text: str) -> None:
        """Say what is worth knowing before the work goes on."""

    def show(self, text: str) -> None:
        """Show how it goes, until there is news."""
