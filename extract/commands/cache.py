"""`cache`: a look into the feature cache, and after it."""

import sys
from pathlib import Path
from typing import Any

import click

from extract.console import CONTEXT, Listing, as_json, cache_option
from extract.errors import OptionError, StoreError
from extract.summaries import echo_committed, echo_garbage, echo_info, echo_inventory, echo_removed, echo_verified
from extract.terminal import count, print_json, progress_bar, size


@click.group(cls=Listing, context_settings=CONTEXT)
def cache() -> None:
    """Look into the feature cache, and after it."""


@cache.command("ls")
@cache_option
@as_json
def cache_ls(cache: Path, as_json: bool) -> None:
    """List the feature sets.

    \b
    Example: python pipeline.py cache ls
    """
    from extract.store.inventory import inventory

    found = inventory(cache)
    print_json(found) if as_json else echo_inventory(found)


@cache.command("info")
@click.argument("features")
@cache_option
@as_json
def cache_info(features: str, cache: Path, as_json: bool) -> None:
    """Show what a feature set is made of: recipe, source, shards and who wrote them, classes, splits, bad rows.

    \b
    Example: python pipeline.py cache info photos
    """
    from extract.store.inventory import describe

    found = describe(features, cache)
    print_json(found) if as_json else echo_info(found)


@cache.command("verify")
@click.argument("features", nargs=-1)
@click.option("--repair", is_flag=True, help="Remove what is damaged: the next extract makes it anew.")
@cache_option
@as_json
def cache_verify(features: tuple[str, ...], repair: bool, cache: Path, as_json: bool) -> None:
    """Look at every byte of FEATURES, or of the whole cache; exit code 1 where something is damaged.

    \b
    Examples: python pipeline.py cache verify
              python pipeline.py cache verify photos --repair
    """
    from extract.store.verify import verify

    with progress_bar() as bar:
        found = verify(features, cache, repair=repair, progress=bar)
    print_json(found) if as_json else echo_verified(found, repair=repair)
    sys.exit(0 if all(problem["repaired"] for problem in found["problems"]) else 1)


@cache.command("commit")
@click.argument("features")
@click.option("--wait", is_flag=True, help="Wait for parts that are at work, instead of giving up.")
@cache_option
@as_json
def cache_commit(features: str, wait: bool, cache: Path, as_json: bool) -> None:
    """Make the index of FEATURES from what extract --part has computed; exit code 1 where rows are missing.

    FEATURES is the NAME that the parts have said, or NAME/KEY where it has several recipes. Rows that no part has
    computed stand in the index without features: run their parts and this again, or extract, which goes on from there.

    \b
    Example: python pipeline.py cache commit photos
    """
    from extract.commit import briefly, commit_parts

    with progress_bar() as bar:
        done = commit_parts(features, cache, wait=wait, on_wait=bar.note)
    if not as_json:
        echo_committed(done)
    if done["missing"]:
        said = (
            f"{done['missing']} of {done['rows']} rows are not computed yet, of these parts: {briefly(done['again'])}"
        )
        raise StoreError(said, where=done["features"], remedy="Run those parts and this again, or extract")
    if as_json:
        print_json(done)


@cache.command("gc")
@click.argument("features", nargs=-1)
@click.option("--delete/--dry-run", default=False, help="Delete the files, or only list them.")
@click.option("--unfinished", is_flag=True, help="Also the rows of extractions that did not come to their end.")
@cache_option
@as_json
def cache_gc(features: tuple[str, ...], delete: bool, unfinished: bool, cache: Path, as_json: bool) -> None:
    """List what FEATURES, or the whole cache, keep in vain, or delete it: unused shards, what killed runs left.

    \b
    Example: python pipeline.py cache gc --delete
    """
    from extract.store.housekeeping import collect_garbage

    found = collect_garbage(features, cache, delete=delete, unfinished=unfinished)
    print_json(found) if as_json else echo_garbage(found)


@cache.command("rm")
@click.argument("features", nargs=-1, required=True)
@click.option("--all", "every", is_flag=True, help="All the feature sets of a NAME.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask. Without a terminal nobody is asked.")
@cache_option
@as_json
def cache_rm(features: tuple[str, ...], every: bool, yes: bool, cache: Path, as_json: bool) -> None:
    """Remove whole feature sets: NAME, or NAME/KEY where a name has several.

    \b
    Example: python pipeline.py cache rm photos/661e6f
    """
    from extract.store.housekeeping import choose_to_remove, remove, size_of

    chosen = choose_to_remove(features, cache, every=every)
    if not yes and sys.stdin.isatty():
        names = ", ".join(folder.name for folder in chosen)
        if not click.confirm(f"Remove {names} ({size(size_of(chosen))})?", err=True):
            raise OptionError("nothing was removed", remedy="Answer y, or do not be asked: --yes")
    done = remove(chosen)
    print_json(done) if as_json else echo_removed(done)


@cache.command("export")
@click.argument("features")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The file, or folder for npy.")
@click.option("--format", "form", type=click.Choice(["h5", "npy"]), default="h5", help="One HDF5, or npy and CSV.")
@click.option("-l", "--layer", "layers", multiple=True, help="Taps to copy.  [default: all of them]")
@click.option("--overwrite", is_flag=True, help="Replace an older copy.")
@cache_option
@as_json
def cache_export(features: str, output: Path, as_json: bool, **options: Any) -> None:
    """Copy FEATURES for other programs: one plain HDF5 file, or a folder of npy files with rows.csv.

    \b
    Examples: python pipeline.py cache export photos -o photos.h5
              python pipeline.py cache export photos -o photos-npy --format npy -l penultimate
    """
    from extract.store.export import ExportSpec, export

    with progress_bar() as bar:
        done = export(ExportSpec(features, output, **options), bar)
    if as_json:
        print_json(done)
        return
    click.echo(f"{done['path']}: {count(done['rows'], 'row')} of {', '.join(done['layers'])}, {size(done['bytes'])}")
