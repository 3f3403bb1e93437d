"""Every Python example in README.md and in docs/ runs as it is printed."""

import re
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"^(?P<indent>[ \t]*)```python\b[^\n]*\n(?P<code>.*?)^(?P=indent)```[ \t]*$", re.MULTILINE | re.DOTALL
)


def python_blocks(page: Path) -> list[tuple[int, str]]:
    """Line number of the first line, and source, of each example on a page."""
    text = page.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, match.start("code")), textwrap.dedent(match["code"])) for match in BLOCK.finditer(text)
    ]


PAGES_WITH_EXAMPLES = [page for page in PAGES if python_blocks(page)]


def test_getting_started_has_examples() -> None:
    assert ROOT / "docs" / "getting-started.md" in PAGES_WITH_EXAMPLES


@pytest.mark.parametrize("page", PAGES_WITH_EXAMPLES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    namespace: dict[str, object] = {"__name__": "__main__"}
    for line, code in python_blocks(page):
        # Blank lines in front make tracebacks point at the line of the page.
        exec(compile("\n" * line + code, str(page), "exec"), namespace)
