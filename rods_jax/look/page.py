"""The page: one HTML document of its own style and scripts, which loads nothing from elsewhere.

uPlot 1.6.32 (MIT, page/uPlot.LICENSE) draws the curves.  All text reaches the document as text nodes, and the policy of
the page names the hashes of its scripts, so that nothing else runs.
"""

import base64
import hashlib
from pathlib import Path

import jinja2

from rods_jax import strict_json
from rods_jax.types import Json

_FOLDER = Path(__file__).parent / "page"
_STYLES = ("uPlot.min.css", "look.css")
_SCRIPTS = ("base.js", "list.js", "curves.js", "pool.js", "trajectories.js", "synthesis.js", "settings.js", "main.js")
MARK = "<!DOCTYPE html>\n<!-- rods look -->\n"  # how a page of ours begins


def page(pieces: Json = None) -> tuple[str, str]:
    """(the document, its content security policy). pieces: by their addresses; None: the page asks its server for them."""
    style = "\n".join(_read(name) for name in _STYLES)
    library, script = _read("uPlot.iife.min.js"), "\n".join(_read(name) for name in _SCRIPTS)
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(library)} {_hash(script)}",
            f"style-src {_hash(style)}",
            "img-src data:",  # of the icon, which is empty
            "connect-src 'self'" if pieces is None else "connect-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    # No text of a run can end the element that holds it: < is written as an escape.
    data = strict_json.dumps(pieces).replace("<", "\\u003c")
    template = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined).from_string(_read("look.html"))
    html = template.render(policy=policy, style=style, library=library, script=script, data=data)
    return MARK + html, policy


def _read(name: str) -> str:
    return (_FOLDER / name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
