"""Turn the formulas of a page into MathML at build time, so that the pages need no script and no network.

`pymdownx.arithmatex` (generic mode) marks formulas in the HTML; this MkDocs hook replaces each mark.
"""

from __future__ import annotations

import html
import logging
import re
from typing import Any

from latex2mathml.converter import convert

# MkDocs counts warnings of this logger, so a formula that cannot be converted fails a strict build.
log = logging.getLogger("mkdocs.hooks.mathml")

_MARKED = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\(?P<open>[(\[])(?P<formula>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)
# A sign after a relation, a comma or an opening bracket is not an operation between two terms.
_SIGN = re.compile(r"(<mo[^>]*>&#x000(?:3D|2C|28|5B);</mo>(?:<mspace[^>]*/>)*)<mo>(&#x02212;|&#x0002B;)</mo>")
# Bars of norms and absolute values: as high as a letter on both sides, whatever follows them.
_BAR = re.compile(r"<mo>(&#x02016;|&#x0007C;)</mo>")
_NOT_CONVERTED = re.compile(r">(\\[A-Za-z]+|&)<")


def on_page_content(content: str, *, page: Any, **_: Any) -> str:
    """Replace the marked formulas of one page."""

    def to_mathml(match: re.Match[str]) -> str:
        formula = html.unescape(match["formula"]).strip()
        display = "block" if match["open"] == "[" else "inline"
        try:
            mathml = convert(formula, display=display)
        except Exception as error:
            log.warning("%s: cannot convert the formula %r: %r", page.file.src_uri, formula, error)
            return match[0]
        for unknown in _NOT_CONVERTED.findall(mathml):
            log.warning("%s: cannot convert %r in the formula %r", page.file.src_uri, unknown, formula)
        mathml = _SIGN.sub(r'\1<mo form="prefix">\2</mo>', mathml)
        mathml = _BAR.sub(r'<mo stretchy="false" lspace="0" rspace="0">\1</mo>', mathml)
        return f'<div class="formula">{mathml}</div>' if display == "block" else mathml

    return _MARKED.sub(to_mathml, content)
