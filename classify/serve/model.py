"""One model for all requests: a thread that owns the stream, and answers in batches whatever waits."""

import contextlib
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Self

from classify.answering import PredictSpec, answers_of, open_proven, open_run
from classify.answers import answer_of
from extract.errors import EngineError
from extract.lanes import Stream
from extract.progress import Silent
from extract.sources import Held

TOGETHER = 64
"""Images that wait and are answered at once, whichever requests they are of."""

Answers = list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Job:
    """The images of one request, and how many classes it wants to see of each."""

    images: Sequence[Held]
    top: int
    answers: "Future[Answers]" = field(default_factory=Future)


class Model:
    """A run that answers any thread as `predict` does: by the same loader, limits and forward pass.

    Use it as a context manager: entering starts its thread and the processes that decode, leaving ends them.
    """

    def __init__(self, spec: PredictSpec) -> None:
        self.spec = replace(spec, compile="none")  # it has to be ready soon, for nobody knows how many images
        self.bundle, self._extractor = open_run(spec)
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._lock, self._waiting = threading.Lock(), 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.result()
        return self

    def __exit__(self, *_: object) -> None:
        self._jobs.put(None)
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether it answers."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Images that are not answered yet."""
        return self._waiting

    def ask(self, images: Sequence[Held], top: int) -> "Future[Answers]":
        """Return what will be one answer for each image, in order, or the error that none could be given for."""
        job = Job(images, top)
        self._count(len(images))
        job.answers.add_done_callback(lambda _: self._count(-len(images)))
        self._jobs.put(job)
        if not self.alive:
            self._refuse()
        return job.answers

    def _count(self, images: int) -> None:
        with self._lock:
            self._waiting += images

    def _work(self) -> None:
        """Answer until there is a None. A stream that failed in the middle is of no use any more: another is opened."""
        try:
            with contextlib.ExitStack() as opened:
                stream = opened.enter_context(self._stream())
                self._ready.set_result(None)
                while jobs := self._take():
                    try:
                        self._answer(stream, jobs)
                    except Exception as error:  # whatever it is, those who wait have to hear of it
                        for job in jobs:
                            job.answers.set_exception(error)
                        opened.close()
                        stream = opened.enter_context(self._stream())
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)
        finally:
            self._refuse()

    def _stream(self) -> contextlib.AbstractContextManager[Stream]:
        return open_proven(self.spec, self.bundle, self._extractor, TOGETHER, Silent())

    def _take(self) -> list[Job]:
        """Wait for a job and take those along that wait behind it, up to TOGETHER images or more; [] at the end."""
        taken: list[Job] = []
        while not taken or (sum(len(job.images) for job in taken) < TOGETHER and not self._jobs.empty()):
            job = self._jobs.get()
            if job is None:
                if taken:
                    self._jobs.put(None)
                break
            if job.answers.set_running_or_notify_cancel():
                taken.append(job)
        return taken

    def _answer(self, stream: Stream, jobs: Sequence[Job]) -> None:
        """Answer jobs, all of whose images flow through the stream together."""
        asked = [(image, job.top) for job in jobs for image in job.images]
        answers: Answers = []
        for batch in stream.run([image for image, _ in asked]):
            found = answers_of(self.bundle, batch)
            for at, item in enumerate(batch.items):
                image, top = asked[len(answers)]
                answers.append(answer_of(image, item, at, found, self.bundle, replace(self.spec, top=top)))
        told = iter(answers)
        for job in jobs:
            job.answers.set_result([next(told) for _ in job.images])

    def _refuse(self) -> None:
        """Tell all who wait that nobody answers any more."""
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                if job and job.answers.set_running_or_notify_cancel():
                    job.answers.set_exception(EngineError("the model has ended", remedy="Start the server again"))
