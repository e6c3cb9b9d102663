"""What the commands of extraction and of its cache say to people when they are done."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import click

from extract.terminal import count, print_table, size

LONG_S = 5
"""An extraction of so many seconds is worth a word on what held it back."""

SOME = 20
"""Of a long list, how many are shown."""


def echo_dry_run(done: dict[str, Any]) -> None:
    """Say what an extraction would do."""
    rows = f"{done['to_compute']:,} of {done['rows']:,} images to compute, {size(done['bytes'])} to write"
    click.echo(f"{done['features']}: {rows}; {size(done['free'])} are free")
    if done["to_compute"]:
        click.echo(f"About {_duration(done['estimated_s'])} at {done['images_per_s']:.0f} images/s, start-up apart.")


def echo_extract(done: dict[str, Any]) -> None:
    """Sum up an extraction."""
    speed = f", {done['images_per_s']:.0f} images/s" if done["images_per_s"] else ""
    equal = f"{done['duplicates']} duplicates, " if done["duplicates"] else ""
    click.echo(
        f"{done['features']}: {done['rows']} rows, {done['computed']} computed, {done['reused']} reused, "
        f"{equal}{done['dropped']} dropped, {done['bad']} bad{speed}"
    )
    for row in done["bad_rows"]:
        click.echo(f"  bad: {row['id']}: {row['status']} ({row['reason']})", err=True)
    if done["bad"] > len(done["bad_rows"]):
        click.echo(f"  and {done['bad'] - len(done['bad_rows'])} more; all reasons: /status and /errors", err=True)
    if done["hint"] and done["seconds"] > LONG_S:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in done["stages"].items() if share >= 0.005)
        click.echo(f"Time: {shares} ({done['runner']}). {done['hint'][0].upper()}{done['hint'][1:]}")
    click.echo(f"Features: {done['path']}")


def echo_part(done: dict[str, Any]) -> None:
    """Sum up a part of an extraction, and say what makes an index of all of them."""
    speed = f", {done['images_per_s']:.0f} images/s" if done["images_per_s"] else ""
    click.echo(
        f"{done['features']}, part {done['part']}: {done['rows']} rows, {done['computed']} computed, "
        f"{done['reused']} reused, {done['bad']} bad{speed}"
    )
    click.echo(f"When all parts are done: cache commit {done['features']}")


def echo_committed(done: dict[str, Any]) -> None:
    """Sum up what parts of an extraction have become."""
    missing = f", {done['missing']} of them not computed yet" if done["missing"] else ""
    click.echo(f"{done['features']}: {done['rows']} rows, {done['bad']} bad{missing}")
    click.echo(f"Features: {done['path']}")


def echo_inventory(found: dict[str, Any]) -> None:
    """List what a cache holds."""
    rows = [
        [
            each["features"],
            each["model"],
            ", ".join(each["layers"]),
            each["rows"],
            each["bad"],
            size(each["bytes"]),
            _age(each["age_s"]),
        ]
        for each in found["feature_sets"]
    ]
    if rows:
        print_table(["features", "model", "layers", "rows", "bad", "size", "age"], rows)
    else:
        click.echo(f"No feature sets in {found['cache']}.", err=True)
    for each in found["unfinished"]:
        remedy = "run its extract again, or cache commit behind its parts"
        click.echo(f"Unfinished: {each['features']}: {size(each['bytes'])}; {remedy}", err=True)
    for each in found["damaged"]:
        click.echo(f"Damaged: {each['path']}: {each['what']}", err=True)


def echo_info(found: dict[str, Any]) -> None:
    """Describe one feature set."""
    shards, bad = found["shards"], found["bad_rows"]
    used, held, n_bytes = (sum(shard[name] for shard in shards) for name in ("used", "rows", "bytes"))
    _echo_facts({name: found[name] for name in ("features", "key", "path", "source")})
    _echo_facts(
        {
            "created": f"{found['created']} ({_age(found['age_s'])} ago)",
            "by": _facts(found["versions"]),
            "size": size(found["bytes"]),
            "rows": f"{found['rows']}, {found['bad']} bad",
            "shards": f"{len(shards)}, {size(n_bytes)}; {used} of {held} rows are used",
            "classes": _some(f"{name or '(none)'} {n}" for name, n in found["label_counts"].items()),
            "splits": _some(f"{name or '(none)'} {n}" for name, n in found["split_counts"].items()),
        }
    )
    click.echo("\nRecipe")
    _echo_facts(_recipe_facts(found["recipe"]))
    click.echo("\nComputed by")
    for each in found["writers"]:
        click.echo(f"  {count(each['shards'], 'shard')}, {count(each['rows'], 'row')}: {_facts(each['writer'])}")
    if bad:
        click.echo("\nBad rows")
        _echo_bad(bad)


def _recipe_facts(recipe: dict[str, Any]) -> dict[str, str]:
    """Put a recipe into words, field by field."""
    taps = zip(recipe["taps"], recipe["nodes"], strict=True)
    facts = recipe | recipe["preprocessing"]
    facts["layers"] = ", ".join(f"{tap['layer']}:{tap['pool']} ({node})" for tap, node in taps)
    for name in ("taps", "nodes", "preprocessing"):
        del facts[name]
    return {name: ", ".join(map(str, v)) if isinstance(v, list) else str(v) for name, v in facts.items()}


def _echo_bad(rows: list[dict[str, str]]) -> None:
    """Count bad rows by reason, and list the first of them."""
    reasons = Counter(f"{row['status']} ({row['reason']})" for row in rows).most_common()
    for reason, n in reasons[:SOME]:
        click.echo(f"  {n} x {reason}")
    for row in rows[:SOME]:
        click.echo(f"    {row['id']}: {row['status']}")
    if len(rows) > SOME:
        click.echo(f"    and {len(rows) - SOME} more: --json lists them all")


def echo_verified(found: dict[str, Any], *, repair: bool) -> None:
    """Say what is damaged, and what helps."""
    problems = found["problems"]
    for problem in problems:
        click.echo(f"{problem['file']}: {problem['what']}{' (repaired)' if problem['repaired'] else ''}")
    for each in found["busy"]:
        click.echo(f"{each['features']}: {each['what']}: nothing of it is repaired", err=True)
    n_bad = len({problem["file"] for problem in problems})
    checked = f"{count(len(found['features']), 'feature set')}, {count(found['files'], 'file')}, {size(found['bytes'])}"
    click.echo(f"{checked}: {f'{n_bad} damaged' if n_bad else 'all whole'}")
    if any(problem["repaired"] for problem in problems):
        click.echo("Run the same extract again: it computes just what is lost.")
    elif problems and not repair:
        click.echo("Repair it with: cache verify --repair")


def echo_garbage(found: dict[str, Any]) -> None:
    """List what is kept in vain, and what became of it."""
    items = found["items"]
    if items:
        rows = [["" if i["rows"] is None else i["rows"], size(i["bytes"]), i["path"]] for i in items]
        print_table(["kind", "rows", "size", "file"], [[i["kind"], *row] for i, row in zip(items, rows, strict=True)])
    for each in found["busy"]:
        click.echo(f"{each['features']}: {each['what']}: left alone", err=True)
    for each in found["damaged"]:
        click.echo(f"{each['features']}: {each['what']}: its shards are left alone. See: cache verify", err=True)
    gone = count(sum(item["delete"] for item in items), "file")
    todo = "can go. Delete them with: --delete" if found["dry_run"] else "deleted."
    click.echo(f"{gone}, {size(found['bytes'])} {todo}")
    if kept := sum(not item["delete"] for item in items):
        click.echo(
            f"{count(kept, 'unfinished file')} kept: the next extract or fit goes on from there, unless --unfinished."
        )


def echo_removed(done: dict[str, Any]) -> None:
    """Say what is gone, and what is left."""
    click.echo(f"Removed {', '.join(done['removed'])}: {size(done['bytes'])}")
    for path in done["left"]:
        click.echo(f"Left: {path}: not a file of the cache", err=True)


def _echo_facts(facts: Mapping[str, object]) -> None:
    for name, value in facts.items():
        click.echo(f"  {name:<15} {value}")


def _facts(facts: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items()) or "(unknown)"


def _some(texts: Iterable[str]) -> str:
    """Join the first texts, and say how many more there are."""
    texts = list(texts)
    return ", ".join(texts[:SOME]) + (f" and {len(texts) - SOME} more" if len(texts) > SOME else "")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _age(seconds: int) -> str:
    for length_s, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length_s:
            return f"{seconds // length_s} {unit}"
    return f"{seconds} s"
