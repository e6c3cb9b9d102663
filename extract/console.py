"""What every command shares: how its errors and its end are told, and the options that many take."""

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from extract.errors import Interrupted, OffshelfError
from extract.spec import available_cores

INTERRUPTED = 130
STOPS = (signal.SIGINT, signal.SIGTERM)
STOP = Interrupted("interrupted", remedy="Run the same command again: what was finished is kept")
GRACE_S = 4.0
JSON, STOPPED = "offshelf.json", "offshelf.stopped"


class Listing(click.Group):
    """Lists its commands in the order of the file, which is that of the work."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in their order."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Say what each command does in its whole first sentence, which click would cut at the end of the line."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.get_short_help_str(sys.maxsize)) for name, each in self.commands.items()])


class Commands(Listing):
    """Turns our errors into one line on stderr, or one JSON object on stdout, and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except Interrupted as error:
            _stopped(error, ctx)
        except OffshelfError as error:
            _fail(error, ctx)
        except BrokenPipeError:
            sys.stderr.close()  # the reader has seen enough; Python would complain at exit
            sys.exit(0)
        except OSError as error:
            remedy = "Check the path, its permissions and the room on the disk"
            _fail(OffshelfError(error.strerror or str(error), where=str(error.filename or ""), remedy=remedy), ctx)
        except MemoryError:
            _fail(
                OffshelfError("out of memory", remedy="Take a smaller --batch-size, fewer --workers, fewer taps"), ctx
            )
        except KeyboardInterrupt:
            _stopped(STOP, ctx)


@contextmanager
def stoppable(ctx: click.Context) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the command in order, or in GRACE_S seconds all the same; a second one ends it now."""

    def stop(number: int, _: object) -> None:
        ctx.meta[STOPPED] = 128 + number
        for each in heard:
            signal.signal(each, lambda *_: os._exit(128 + number))
        late = threading.Timer(GRACE_S, _leave, [STOP, ctx])
        late.daemon = True
        late.start()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [each for each in STOPS if signal.getsignal(each) is not signal.SIG_IGN]
    before = {each: signal.signal(each, stop) for each in heard}
    try:
        yield
    finally:
        if STOPPED not in ctx.meta:
            for each, handler in before.items():
                signal.signal(each, handler)


def _stopped(error: Interrupted, ctx: click.Context) -> NoReturn:
    """End a command that was stopped; after a signal at once: Python takes seconds to tear torch down."""
    if STOPPED in ctx.meta:
        _leave(error, ctx)
    _fail(error, ctx, INTERRUPTED)


def _leave(error: Interrupted, ctx: click.Context) -> NoReturn:
    """End the process now; a cache is right at any instant."""
    try:
        _say(error, ctx)
        sys.stdout.flush()
    finally:
        os._exit(ctx.meta[STOPPED])


def _fail(error: OffshelfError, ctx: click.Context, code: int = 1) -> NoReturn:
    _say(error, ctx)
    sys.exit(code)


def _say(error: OffshelfError, ctx: click.Context) -> None:
    if ctx.meta.get(JSON):
        click.echo(json.dumps({"error": error.as_dict()}))
    else:
        click.echo(f"Error: {error}", err=True)


def note_json(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
    """Remember for all of the run that errors are wanted as JSON, too."""
    ctx.meta[JSON] = value
    return value


CONTEXT = {"show_default": True, "help_option_names": ["-h", "--help"], "max_content_width": 110}
SEED = click.IntRange(0, 2**32 - 1)
FOLDER = click.Path(file_okay=False, path_type=Path)

as_json = click.option("--json", "as_json", is_flag=True, callback=note_json, help="Print one JSON object on stdout.")
cache_option = click.option("--cache", type=FOLDER, default=Path("cache"), help="Folder of the feature cache.")
root_option = click.option(
    "--root", type=FOLDER, help="Folder that the paths of a manifest start from, or where torchvision keeps a data set."
)
device_option = click.option(
    "--device", default="auto", help="auto, cpu, cuda, cuda:1; extract: also cuda:0,cuda:1 or cuda:all."
)


class LogLines(logging.Handler):
    """Shows what the library logs as lines on stderr, one for each message."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        click.echo(f"{record.levelname.capitalize()}: {record.getMessage()}", err=True)


class BatchSize(click.IntRange):
    """A number of images, or None for `auto`."""

    name = "auto|integer"

    def __init__(self) -> None:
        super().__init__(1, 4096)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read what the user typed."""
        return None if value == "auto" else super().convert(value, param, ctx)


batch_option = click.option(
    "-b",
    "--batch-size",
    type=BatchSize(),
    default="auto",
    help="Images per batch; auto goes by the network's input size.",
)
workers_option = click.option(
    "-j",
    "--workers",
    type=click.IntRange(1, 256),
    default=available_cores,
    show_default="cores",
    help="Processes that read and decode, each with a thread that resizes.",
)


def loading_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add what every command takes that shows images to a network."""
    return device_option(workers_option(batch_option(command)))


def given(option: str) -> bool:
    """Say whether the user typed an option of this command."""
    return click.get_current_context().get_parameter_source(option) is ParameterSource.COMMANDLINE
