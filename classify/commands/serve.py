"""`serve`: a run as a small HTTP server."""

import json
from typing import Any

import click

from classify.commands.predict import cores_for_the_network
from extract.console import as_json, loading_options

MB = 1 << 20


@click.command()
@click.argument("run")
@click.option("--host", default="127.0.0.1", help="Address to listen at; 0.0.0.0 lets every machine in, unasked.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, help="Port to listen at; 0 takes a free one.")
@click.option("--max-images", type=click.IntRange(1, 4096), default=64, help="Most images of one request.")
@click.option("--max-mb", type=click.IntRange(1, 1024), default=64, help="Most megabytes of one request.")
@click.option(
    "--abstain-below",
    type=click.FloatRange(0, 1),
    help="Mark answers of a lower probability.  [default: the run's own threshold]",
)
@loading_options
@as_json
def serve(run: str, host: str, port: int, max_images: int, max_mb: int, as_json: bool, **options: Any) -> None:
    """Answer over HTTP as predict does: POST /predict (uploads), POST /predict/batch (JSON), and a page at /.

    It also has /info, /healthz and /metrics. Ctrl-C ends it. There is no password: leave it on this machine, or put a
    server in front that asks for one.

    \b
    Example: python pipeline.py serve photos --port 8000
             curl -F image=@new/a.jpg http://127.0.0.1:8000/predict
    """
    from classify.predict import PredictSpec
    from classify.serve.server import ServeSpec
    from classify.serve.server import serve as start

    def told(url: str) -> None:
        click.echo(json.dumps({"run": run, "url": url}) if as_json else f"{run} answers at {url}; Ctrl-C ends it.")

    with cores_for_the_network():
        start(ServeSpec(PredictSpec(run, **options), host, port, max_images, max_mb * MB), told)
