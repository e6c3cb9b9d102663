"""Completion in the shell: what there is to be named, found without importing anything heavy."""

import re
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

import click
from click.shell_completion import CompletionItem

REGISTERED = re.compile(r"^@register_model\(\)\s+(?:@.*\s+)*?def (\w+)\(", re.MULTILINE)
TRANSFORMERS = ("vision_transformer", "swin_transformer", "maxvit")
"""Modules of torchvision whose networks are no ConvNets."""


class Named(click.ParamType):
    """Text that names one of some things; where none begins like it, it may be a path."""

    name = "text"

    def __init__(self, names: Callable[[click.Context], Iterable[str]]) -> None:
        self._names = names

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return what begins as it was typed."""
        del param
        found = sorted({name for name in self._names(ctx) if name.startswith(incomplete)})
        return [CompletionItem(name) for name in found] or [CompletionItem(incomplete, type="file")]


def features(ctx: click.Context) -> Iterable[str]:
    """List the feature sets of the cache, by name and, where a name has several, with their key."""
    from extract.store.folders import list_folders

    folders = [each for each in list_folders(Path(ctx.params.get("cache") or "cache")) if each.index.is_file()]
    names = [each.path.parent.name for each in folders]
    return [*names, *(each.name for each in folders if names.count(each.path.parent.name) > 1)]


def runs(_: click.Context) -> Iterable[str]:
    """List the runs in the folder where they go by default."""
    return [path.parent.name for path in Path("runs").glob("*/metrics.json")]


def models(_: click.Context) -> Iterable[str]:
    """List the networks, from the text of torchvision: importing it takes seconds."""
    spec = find_spec("torchvision")
    folder = Path(spec.origin).parent / "models" if spec and spec.origin else Path()
    files = [path for path in folder.glob("*.py") if path.stem not in TRANSFORMERS]
    return ["builtin", *(name for path in files for name in REGISTERED.findall(path.read_text(encoding="utf-8")))]


def nothing(_: click.Context) -> Iterable[str]:
    """List nothing: it is a path."""
    return ()


LISTED = {"features": features, "run": runs, "runs": runs, "model": models, "data": nothing, "inputs": nothing}
"""What is listed for arguments and options of these names."""


def completing(command: click.Command) -> click.Command:
    """Have the parameters of a command, and of those below it, complete what they name."""
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        completing(below)
    for param in command.params:
        if param.type is click.STRING and param.name in LISTED:
            param.type = Named(LISTED[param.name])
    return command
