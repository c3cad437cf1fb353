"""The report as Markdown, and as one self-contained HTML file.

Text of the data set reaches the page in two ways only: escaped by `html.escape`, or in one JSON block whose `<`, `>`
and `&` are written as \\u003c ..., from which the script builds text nodes, never markup. A Content-Security-Policy
allows this script and this style sheet, by their hashes, and images in data URIs; nothing is fetched.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from pathlib import Path
from string import Template
from typing import Any

HERE = Path(__file__).parent
DENSITY = 1.4  # pixels of a picture to one of the page
_HEADING = re.compile(r"(#{1,6}) (.*)")
_IMAGE = re.compile(r"!\[(.*)\]\((.*)\)")
_RULE = re.compile(r"\|(\s*:?-+:?\s*\|)+")  # between a table's header and its body
_INTERVAL = re.compile(r" (\[[^\[\]]+\])$")  # at the end of a cell: 0.5 [0.4, 0.6]
_CODE, _BOLD = re.compile(r"`([^`]+)`"), re.compile(r"\*\*([^*]+)\*\*")


def markdown_report(title: str, sections: Mapping[str, Sequence[str]]) -> str:
    """The title, and under each section's heading its parts, which are Markdown themselves."""
    lines = [f"# {title}"]
    for heading, parts in sections.items():
        lines += ["", f"## {heading}"]
        for part in parts:
            lines += ["", part.strip()]
    return "\n".join(lines) + "\n"


def html_report(title: str, markdown: str, images: Mapping[str, bytes], data: Any) -> str:
    """The page: the Markdown with its images (PNG, by the names it gives them), and the question browser of `data`."""
    style = (HERE / "page.css").read_text(encoding="utf-8")
    script = (HERE / "page.js").read_text(encoding="utf-8")
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    )
    return Template((HERE / "page.html").read_text(encoding="utf-8")).substitute(
        policy=policy,
        title=html.escape(title),
        style=style,
        script=script,
        results=html_of(markdown, images),
        data=json_block(data),
    )


def json_block(data: Any) -> str:
    """JSON that cannot end the script element around it."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def html_of(markdown: str, images: Mapping[str, bytes]) -> str:
    """HTML of the Markdown that the pipeline writes: headings, paragraphs, lists, tables, and images among `images`.

    Anything else is shown as written.
    """
    blocks = re.split(r"\n{2,}", markdown.strip())
    return "\n".join(_block(block, images) for block in blocks)


def _block(block: str, images: Mapping[str, bytes]) -> str:
    lines = block.split("\n")
    if match := _HEADING.fullmatch(block):
        level = len(match[1])
        return f"<h{level}>{_inline(match[2])}</h{level}>"
    if (match := _IMAGE.fullmatch(block)) and match[2] in images:
        return _figure(match[1], images[match[2]])
    if len(lines) > 1 and _RULE.fullmatch(lines[1]):
        header, rule, *body = [_cells(line) for line in lines]
        right = [cell.endswith(":") for cell in rule]
        rows = [_row("th", header, right)] if any(header) else []
        rows += [_row("td", row, right) for row in body]
        return f'<div class="wide"><table>{"".join(rows)}</table></div>'
    if all(line.startswith("- ") for line in lines):
        return f"<ul>{''.join(f'<li>{_inline(line[2:])}</li>' for line in lines)}</ul>"
    return f"<p>{_inline(' '.join(lines))}</p>"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]


def _row(tag: str, cells: Sequence[str], right: Sequence[bool]) -> str:
    """A row of a table; `right`: which of its columns are aligned to the right, as numbers are."""
    shown = []
    for cell, number in zip(cells, chain(right, repeat(False)), strict=False):
        text = _inline(cell)
        if number and tag == "td":
            text = _INTERVAL.sub(r' <span class="interval">\1</span>', text)
        aligned = ' class="number"' if number else ""
        shown.append(f"<{tag}{aligned}>{text}</{tag}>")
    return f"<tr>{''.join(shown)}</tr>"


def _inline(text: str) -> str:
    marked = _CODE.sub(r"<code>\1</code>", html.escape(text))
    return _BOLD.sub(r"<strong>\1</strong>", marked)


def _figure(caption: str, png: bytes) -> str:
    source, caption = base64.b64encode(png).decode(), html.escape(caption)
    width = round(int.from_bytes(png[16:20], "big") / DENSITY)  # from the header of the PNG
    return (
        f'<figure><div class="wide"><img src="data:image/png;base64,{source}" width="{width}" alt="{caption}"></div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
