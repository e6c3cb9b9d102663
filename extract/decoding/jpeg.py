"""PLACEHOLDER until batched's eligible is moved here."""


def eligible(data: bytes) -> bool:
    return False
