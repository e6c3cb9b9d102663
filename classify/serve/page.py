"""The page to drop an image on: one file, one script of its own, nothing from elsewhere; it works with keys alone."""

import base64
import hashlib
import html
from collections.abc import Sequence

from classify.report.page import style
from classify.serve.requests import Limits

MOST_CLASSES = 50
"""Names of classes that the page lists."""

RULES = """
form{border:2px dashed var(--line);border-radius:.7rem;padding:1.4rem;margin:1rem 0;background:var(--card)}
form.over{border-color:var(--mark)}label{display:block;font-weight:600;margin-bottom:.5rem}
input,button{font:inherit}input[type=file]{max-width:100%}
button{margin-top:.8rem;padding:.35rem 1.1rem;border-radius:.4rem;border:1px solid var(--mark);background:var(--mark);
color:var(--back);cursor:pointer}button:disabled{opacity:.5}
:focus-visible{outline:3px solid var(--mark);outline-offset:2px}
#answers{list-style:none;padding:0;display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,minmax(15rem,1fr))}
#answers li{background:var(--card);border-radius:.5rem;padding:.8rem}
#answers img{display:block;width:100%;max-height:14rem;object-fit:contain;background:var(--back);border-radius:.3rem}
#answers h3{margin:.6rem 0 .2rem}#answers table{width:100%}
"""

SCRIPT = """
const form = document.querySelector("form"), input = document.querySelector("input"),
  button = document.querySelector("button"), said = document.getElementById("said"),
  list = document.getElementById("answers");
const put = (parent, tag, text) => {
  const made = document.createElement(tag);
  made.textContent = text;
  return parent.appendChild(made);
};
const percent = (share) => (100 * share).toFixed(1) + " %";
const show = (answer, file) => {
  const card = document.createElement("li");
  if (answer.status === "ok") {
    const picture = card.appendChild(document.createElement("img"));
    picture.alt = "";
    picture.src = URL.createObjectURL(file);
    picture.onload = () => URL.revokeObjectURL(picture.src);
  }
  const names = answer.labels ? answer.labels.join(", ") || "none of the labels" : answer.label;
  put(card, "h3", answer.status === "ok" ? names : "No answer");
  put(card, "p", answer.id).className = "soft";
  if (answer.status !== "ok") put(card, "p", answer.status + ": " + answer.reason);
  if (answer.status === "ok" && answer.abstained) put(card, "p", "Not sure enough to be an answer.");
  if (answer.known === false) put(card, "p", "Unlike anything seen in training.");
  if (answer.top.length) {
    const table = card.appendChild(document.createElement("table"));
    put(table, "caption", "Most probable");
    for (const each of answer.top) {
      const row = table.insertRow();
      put(row, "th", each.label).scope = "row";
      put(row, "td", percent(each.probability));
    }
  }
  list.append(card);
};
const ask = async (files) => {
  if (!files.length) { said.textContent = "Choose an image first."; return; }
  const body = new FormData();
  for (const file of files) body.append("image", file, file.name);
  button.disabled = true;
  said.textContent = "Looking at " + files.length + (files.length === 1 ? " image" : " images") + " \\u2026";
  list.replaceChildren();
  try {
    const response = await fetch("predict", { method: "POST", body });
    const found = await response.json();
    if (!found.answers) throw new Error(found.error ? found.error.what : "the server said " + response.status);
    found.answers.forEach((answer, i) => show(answer, files[i]));
    const first = found.answers[0];
    said.textContent = found.answers.length > 1 ? found.answers.length + " answers."
      : first.status === "ok" ? "Answer: " + (first.labels ? first.labels.join(", ") : first.label) : "No answer.";
  } catch (error) {
    said.textContent = "That failed: " + error.message;
  }
  button.disabled = false;
};
form.addEventListener("submit", (event) => { event.preventDefault(); ask([...input.files]); });
input.addEventListener("change", () => ask([...input.files]));
for (const kind of ["dragenter", "dragover"]) document.addEventListener(kind, (event) => {
  event.preventDefault();
  form.classList.add("over");
});
for (const kind of ["dragleave", "drop"]) document.addEventListener(kind, () => form.classList.remove("over"));
document.addEventListener("drop", (event) => { event.preventDefault(); ask([...event.dataTransfer.files]); });
document.addEventListener("paste", (event) => ask([...event.clipboardData.files]));
"""

_HASH = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; script-src 'sha256-{_HASH}'; style-src 'unsafe-inline'; img-src blob: data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""What the page may do: run its own script, show the images that were chosen, and ask this server."""


def page(name: str, classes: Sequence[str], limits: Limits) -> str:
    """Write the page of a run."""
    listed = ", ".join(map(html.escape, classes[:MOST_CLASSES]))
    more = f" and {len(classes) - MOST_CLASSES} more" if len(classes) > MOST_CLASSES else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{html.escape(name)} · offshelf</title><style>{style()}{RULES}</style></head><body><main>\n"
        f"<h1>{html.escape(name)}</h1>\n<p>Drop an image anywhere, paste one, or choose files. "
        f"It knows {len(classes)} classes: {listed}{more}.</p>\n"
        '<form action="predict" method="post" enctype="multipart/form-data">'
        f'<label for="files">Images, up to {limits.images}</label>'
        '<input id="files" name="image" type="file" accept="image/*" multiple>\n'
        '<div><button type="submit">Classify</button></div></form>\n'
        '<p id="said" role="status"></p>\n<ul id="answers"></ul>\n'
        f"</main><script>{SCRIPT}</script></body></html>\n"
    )
