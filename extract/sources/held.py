"""Images whose bytes are at hand, as those of a request: nothing of them lies on a disk."""

from dataclasses import dataclass

from extract.record import Failure, Record, Status


@dataclass(frozen=True, slots=True)
class Held(Record):
    """One image by its bytes; its `path` means nothing."""

    data: bytes = b""

    @classmethod
    def of(cls, name: str, data: bytes) -> "Held":
        """Call some bytes by a name."""
        return cls(name, "", data=data)

    def read(self, max_bytes: int) -> bytes | Failure:
        """Return the bytes, unless they are none, or too many."""
        if not self.data:
            return Failure(Status.EMPTY, "no bytes")
        if len(self.data) > max_bytes:
            return Failure(Status.TOO_LARGE, f"{len(self.data)} bytes, more than the limit of {max_bytes}")
        return self.data
