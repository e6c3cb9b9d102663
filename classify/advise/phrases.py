"""What the words of an advice are made of: the names of the cases, what a strategy does, differences with intervals."""

from collections.abc import Mapping, Sequence

NAMES = {
    "similar": "{size} and similar",
    "different": "{size} and different",
    "useless": "{size}, pretraining of no use",
    "unclear": "{size}, similarity unclear",
}
"""The case, by how similar the images are to those that the network learned from, and by whether they are few."""

MEANINGS = {
    "similar": "the last layers of the network suit them",
    "different": "earlier layers of the network suit them better than its last ones, which are made for other images",
    "useless": "what the network learned from other images is of no measurable help with them",
    "unclear": "it could not be told for sure whether the last layers of the network suit them",
}
NO_PROFILE = "how well the layers of the network suit them was not measured"
BRACKETS = "A point is one in a hundred; brackets hold the range that is likely, with 95 % confidence."

ADVICE = {
    "linear": "keep the network as it is, and train a linear classifier on what it says of each image (linear)",
    "taps": "keep the network as it is, and train a linear classifier on one more of its layers, too (taps)",
    "tail": "train the upper layers of the network too, and keep the lower ones as they are (tail)",
    "lp-ft": "train a linear classifier first and from there, in small steps, the whole network (lp-ft)",
    "full": "train the whole network further, from the weights that it has (full)",
    "scratch": "train the whole network anew, from random weights (scratch)",
}
LIMITS = {
    "data-limited": "More images are worth collecting.",
    "saturated": "That is hardly worth the work of collecting them.",
    "undecided": "Whether that is more than chance is not clear.",
}
IF_MORE = {
    "data-limited": "many more images, as training the network itself pays more the more there are",
    "saturated": "another network, as more of the same images would hardly help this one",
    "undecided": "many more images or another network",
}
IF_TRAINED = "a test on new images that does not show what the training gained"
IF_UNCLEAR = "more images, enough to tell the case"
IF_UNMEASURED = "a measurement of its layers, for which the notes say what is missing"
IF_OTHERS = "images or classes of another kind than these"


def points(value: float) -> str:
    """Write the size of a difference of shares, without its sign."""
    return f"{abs(value) * 100:.1f} points"


def differs(found: Mapping[str, float], more: str = "higher", less: str = "lower") -> str:
    """Write a difference of shares and its interval: `1.2 points lower (2.5 lower to 0.1 higher)`."""
    ends = [found["low"], found["high"]]
    if (ends[0] < 0) == (ends[1] < 0):
        first, last = sorted(map(abs, ends))
        likely = f"{first * 100:.1f} to {_told(last, ends[0] < 0, more, less)}"
    else:
        likely = " to ".join(_told(end, end < 0, more, less) for end in ends)
    return f"{points(found['value'])} {less if found['value'] < 0 else more} ({likely})"


def _told(value: float, negative: bool, more: str, less: str) -> str:
    return f"{abs(value) * 100:.1f} {less if negative else more}"


def gains(found: Mapping[str, float]) -> str:
    """Write a predicted gain {gain, low, high} and its interval: `3.1 points (0.0 to 12.4)`."""
    gain, low, high = (f"{found[end] * 100:z.1f}" for end in ("gain", "low", "high"))
    return f"{gain} points ({low} to {high})"


def layer(tap: str) -> str:
    """Name the layer of a tap, without how it was pooled: `layer3` of `layer3:grid:4`."""
    return tap.partition(":")[0]


def joined(texts: Sequence[str], last: str = " and ", between: str = ", ") -> str:
    """Join texts, the last two by another word."""
    head = between.join(texts[:-1])
    return last.join([head, texts[-1]] if head else texts[-1:])


def article(name: str) -> str:
    """Put the right article before a word."""
    return f"{'an' if name[:1] in 'aeiou' else 'a'} {name}"
