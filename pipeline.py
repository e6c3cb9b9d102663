"""The commands of offshelf: options become one frozen spec, one call does the work, the result is printed.

Everything heavy is imported inside the commands, so that `--help` answers at once.
"""

import logging
from importlib.metadata import PackageNotFoundError, version

import click

from classify.commands.advise import advise
from classify.commands.compare import compare
from classify.commands.demo import demo
from classify.commands.export import export
from classify.commands.fit import fit
from classify.commands.predict import evaluate, predict
from classify.commands.report import report
from classify.commands.serve import serve
from extract.commands.cache import cache
from extract.commands.extract import extract
from extract.commands.models import doctor, layers, models
from extract.completion import completing
from extract.console import CONTEXT, Commands, LogLines

WORK = (demo, extract, fit, advise, compare, report, predict, evaluate, export, serve)
COMMANDS = (*WORK, layers, models, cache, doctor)
"""In the order of the work."""


def _version() -> str:
    try:
        return version("offshelf")
    except PackageNotFoundError:
        return "not installed"


@click.group(cls=Commands, context_settings=CONTEXT)
@click.version_option(_version(), prog_name="offshelf")
@click.option("-v", "--verbose", is_flag=True, help="Say more on stderr.")
def main(verbose: bool) -> None:
    """Turn a folder of images into a trustworthy classifier by reusing a pretrained ConvNet.

    \b
      python pipeline.py demo                      everything once, offline, in about a minute
      python pipeline.py extract photos -m resnet50
      python pipeline.py fit photos
      python pipeline.py predict photos new/*.jpg
    """
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[LogLines()])


for command in COMMANDS:
    main.add_command(completing(command))


if __name__ == "__main__":
    main()
