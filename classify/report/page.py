"""The shell of the page: no script, no network, one style for phone, screen, print, light and dark."""

from collections.abc import Sequence

from classify.report.evidence import Section

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

MAX_SHADE = 0.6
"""Of the shading behind a number, so that the number stays readable."""

LIGHT = {
    "ink": "#1d2733",
    "soft": "#566270",
    "line": "#d5dbe2",
    "back": "#ffffff",
    "card": "#f4f6f9",
    "mark": "#1f5c9e",
    "warn": "#fff1d6",
    "warn-ink": "#5c3a00",
    "shade": "47,111,179",
}
DARK = {
    "ink": "#e4e9f0",
    "soft": "#9fabb9",
    "line": "#37414d",
    "back": "#14181d",
    "card": "#1d232a",
    "mark": "#8fc0f2",
    "warn": "#3a2d14",
    "warn-ink": "#ffdf9e",
    "shade": "58,110,168",
}

RULES = """
*{box-sizing:border-box}
body{font:16px/1.55 system-ui,sans-serif;color:var(--ink);background:var(--back);max-width:60rem;margin:0 auto;
padding:1.2rem 1rem 4rem;overflow-wrap:anywhere}
h1{font-size:1.75rem;line-height:1.2;margin:.4rem 0 .6rem;text-wrap:balance}
h2{font-size:1.2rem;margin:0 0 .6rem}h3{font-size:1rem;margin:1.6rem 0 .4rem}
section{margin-top:2.2rem;padding-top:1.4rem;border-top:1px solid var(--line)}
p{margin:.5rem 0;max-width:44rem}.eyebrow,.soft,caption,figcaption{color:var(--soft)}.eyebrow{margin:0;font-size:.9rem}
.verdict{font-size:1.15rem}a{color:var(--mark)}code{font-size:.9em}
.warn{background:var(--warn);color:var(--warn-ink);padding:.6rem .9rem;border-radius:.5rem;margin:1rem 0;
border-left:.3rem solid currentColor}.warn ul{margin:.2rem 0;padding-left:1.1rem}.warn p{margin:0}
.next{background:var(--card);padding:.7rem .9rem;border-radius:.5rem;margin:1rem 0}
.next h2{font-size:1rem;margin:0}.next ol{margin:.3rem 0;padding-left:1.3rem}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));gap:.4rem 1.2rem;margin:1.2rem 0}
.facts dt{color:var(--soft);font-size:.85rem}.facts dd{margin:0;font-weight:600}
nav ul{display:flex;flex-wrap:wrap;gap:.2rem 1rem;list-style:none;padding:0;margin:1rem 0;font-size:.95rem}
.beside{display:grid;grid-template-columns:minmax(0,1fr);gap:.6rem 2rem}
@media(min-width:54rem){.beside{grid-template-columns:520px minmax(0,1fr);align-items:start}}
.beside p:first-child{margin-top:0}.beside svg{display:block}
.panels{margin:1rem 0;display:grid;grid-template-columns:minmax(0,1fr);gap:1rem 2rem}
@media(min-width:58rem){.panels{grid-template-columns:repeat(2,minmax(0,1fr));align-items:start}}
.wide{overflow-x:auto;margin:.6rem 0;overflow-wrap:normal}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.93rem}
caption{text-align:left;padding-bottom:.3rem}
th,td{padding:.25rem .6rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}thead th{vertical-align:bottom;white-space:normal}
.matrix td{text-align:center;min-width:2.2rem;padding:.25rem .3rem;border:1px solid var(--line)}
.matrix .hit{font-weight:700}.matrix.tall thead th:not(:first-child) span{writing-mode:vertical-rl;
transform:rotate(180deg);max-height:12rem}
.matrix thead th{text-align:center}.chosen{font-weight:600}
details{margin:.6rem 0}summary{cursor:pointer;color:var(--mark)}
.cards{list-style:none;padding:0;margin:.6rem 0;display:grid;gap:.7rem;
grid-template-columns:repeat(auto-fill,minmax(8.2rem,1fr))}
.cards.pairs{grid-template-columns:repeat(auto-fill,minmax(14.5rem,1fr))}
.cards li{background:var(--card);border-radius:.5rem;padding:.5rem;font-size:.85rem;line-height:1.4}
.cards .looks{display:grid;grid-auto-flow:column;grid-auto-columns:minmax(0,1fr);gap:.4rem;margin-bottom:.4rem}
.cards img{display:block;width:100%;aspect-ratio:1;object-fit:contain;background:var(--back);border-radius:.3rem}
.cards strong{display:block}.cards .id{color:var(--soft);font-size:.8rem}.tag{font-weight:600}
pre{white-space:pre-wrap;background:var(--card);padding:.6rem .8rem;border-radius:.5rem;margin:.5rem 0}
@media print{@page{margin:15mm}body{font-size:10.5pt;max-width:none;padding:0}nav{display:none}
section{break-inside:auto;margin-top:1rem;padding-top:.8rem}h1,h2,h3,summary,caption{break-after:avoid}
svg,tr,.cards li,.warn,.next{break-inside:avoid}.wide{overflow:visible}table{font-size:8.5pt}
th,td{padding:.1rem .35rem}.matrix td{print-color-adjust:exact;-webkit-print-color-adjust:exact}
details::details-content{display:block;content-visibility:visible;block-size:auto}}
"""


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Put HTML into the shell: an escaped title, what stands above everything, and the sections with a list of them."""
    links = "".join(f'<li><a href="#{each.anchor}">{each.title}</a></li>' for each in sections)
    parts = "".join(
        f'<section id="{each.anchor}" aria-labelledby="{each.anchor}-title">'
        f'<h2 id="{each.anchor}-title">{each.title}</h2>{each.body}</section>\n'
        for each in sections
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{style()}</style></head><body><main>\n{lead}\n"
        f'<nav aria-label="on this page"><ul>{links}</ul></nav>\n{parts}</main></body></html>\n'
    )


def style() -> str:
    """Write the style sheet; on paper it is always light."""
    dark = f"@media screen and (prefers-color-scheme:dark){{{_root(DARK)}}}"
    return f":root{{color-scheme:light dark}}{_root(LIGHT)}{dark}{RULES}"


def _root(colours: dict[str, str]) -> str:
    return ":root{" + "".join(f"--{name}:{value};" for name, value in colours.items()) + "}"
