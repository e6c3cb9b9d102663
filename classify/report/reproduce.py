"""How to do it again: the command, the key of the features, the seed, the versions."""

import os
import shlex

from classify.report.evidence import Evidence, Metrics, Section, dig
from classify.report.text import bullets, clipped, decimal, measure_name, number, printable


def command_line(metrics: Metrics) -> str | None:
    """Write the command of a run as one types it in a shell; None where the run does not know it."""
    words = metrics.get("command")
    return " ".join(_quoted(str(word)) for word in words) if words else None


def _quoted(word: str) -> str:
    """Quote for a POSIX shell; bytes that cannot be shown as bash's $'...' with their codes."""
    if word.isprintable() or not word:
        return shlex.quote(word)
    return "$'" + "".join(_coded(byte) for byte in os.fsencode(word)) + "'"


def _coded(byte: int) -> str:
    plain = 32 <= byte < 127 and chr(byte) not in "'\\"
    return chr(byte) if plain else f"\\x{byte:02x}"


def section(evidence: Evidence) -> Section:
    """Show what is needed for the same result."""
    m = evidence.metrics
    command = command_line(m)
    typed = f"<pre><code>{printable(command)}</code></pre>" if command else ""
    facts = [
        f"features <code>{clipped(m.get('features'))}</code>, key <code>{printable(str(m.get('features_key')))}</code>",
        f"seed {number(m.get('seed'))}, {_folds(m)}"
        f"chosen by {measure_name(str(m.get('metric') or 'accuracy'))}{_protocol(m)}",
    ]
    if m.get("seconds") is not None:
        facts.append(f"it took {decimal(m['seconds'])} s")
    facts += [printable(str(note)) for note in m.get("notes") or []]
    used = ", ".join(f"{clipped(name)} {clipped(version)}" for name, version in (m.get("versions") or {}).items())
    return Section("again", "To do it again", f'{typed}{bullets(facts)}<p class="soft">{used}</p>')


def _folds(m: Metrics) -> str:
    return f"{number(m['folds'])} folds, " if m.get("folds") else ""


def _protocol(m: Metrics) -> str:
    found = m.get("protocol")
    if not found:
        return ""
    cited = f" ({clipped(found['citation'])})" if dig(found, "citation") else ""
    return f", by the protocol {clipped(dig(found, 'protocol') or found)}{cited}"
