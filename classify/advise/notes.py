"""What is said while ways to train are tried: each thing once, and which of them it is about."""

from extract.progress import Watch


class Once:
    """A watch that is told every note once, however often a training is set up."""

    def __init__(self, watch: Watch) -> None:
        self.start, self.advance, self.show, self._note = watch.start, watch.advance, watch.show, watch.note
        self._said: set[str] = set()

    def note(self, text: str) -> None:
        """Say it, unless it was said."""
        if text not in self._said:
            self._said.add(text)
            self._note(text)


class About:
    """A watch that says of every note which way to train it is about."""

    def __init__(self, rung: str, watch: Watch) -> None:
        self.start, self.advance, self.show, self._note = watch.start, watch.advance, watch.show, watch.note
        self._rung = rung

    def note(self, text: str) -> None:
        """Say it of the rung."""
        self._note(f"{self._rung}: {text}")
