from classify.advise.notes import About, Once
from extract.progress import Silent


def test_a_note_is_said_once():
    class Kept(Silent):
        def __init__(self) -> None:
            self.notes: list[str] = []

        def note(self, text: str) -> None:
            self.notes.append(text)

    kept = Kept()
    once = Once(kept)
    for text in ("few images", "many rates", "few images"):
        once.note(text)
    assert kept.notes == ["few images", "many rates"]


def test_a_note_names_the_way_to_train_that_it_is_about():
    notes: list[str] = []
    kept = Silent()
    kept.note = notes.append
    about = About("tail", Once(kept))
    about.note("few images")
    About("full", Once(kept)).note("few images")
    about.note("few images")
    assert notes == ["tail: few images", "full: few images"]
