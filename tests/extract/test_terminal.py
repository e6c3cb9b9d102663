from rich.progress import Task

from extract import terminal
from extract.terminal import Speed, progress_bar


def test_the_bar_counts_steps_and_what_came_to_nothing():
    with progress_bar() as bar:
        bar.start("hash", 3)
        bar.advance(3)
        bar.start("extract", 10)
        bar.advance(2)
        bar.advance(3, 1)
        bar.advance(1, 2)
        [hashed, extracted] = bar.progress.tasks
    assert (hashed.completed, hashed.fields["bad"]) == (3, "")
    assert (extracted.completed, extracted.fields["bad"]) == (6, "3 bad")


def test_the_bar_shows_how_it_goes_until_there_is_news():
    with progress_bar() as bar:
        bar.show("nobody has begun")
        bar.start("fold 1", 3)
        bar.show("loss 0.5")
        bar.show("loss 0.4")
        bar.start("fold 2", 3)
        [one, two] = bar.progress.tasks
    assert (one.fields["shown"], two.fields["shown"]) == ("loss 0.4", "")


def test_a_note_goes_to_stderr_in_one_line(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "err", terminal.Console(stderr=True, highlight=False, width=20))
    with progress_bar() as bar:
        bar.note("new features: [pets] differs in: " + "a" * 40)
    assert capsys.readouterr().err == f"Note: new features: [pets] differs in: {'a' * 40}\n"


def test_speed_is_a_round_figure():
    task = Task(0, "extract", None, 0, _get_time=lambda: 0.0)  # type: ignore[arg-type]
    assert Speed().render(task).plain == ""
    task.finished_speed = 123.4
    assert Speed().render(task).plain == "123/s"
