"""List wording that is hard to read: `python tools/english.py`, in docs, README and messages.

Exit code 1 if there is any. Inline code in markdown and strings of one word are names, not prose.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]

PATTERNS = {
    r"unless told": "Default: ...",
    r"(?<!there) is no (?!longer\b|one\b|such\b|more than\b|less than\b)\w+": "is not a ...",
    r"(?:^|[.;:] )Of\b": "begin with the subject",
    r"^What [^.,:]* (?:is|are)\.?$": "say it",
    r"\bso many\b": "write the number, or: this many",
    r"\ba second's\b": "of a second",
    r"\bfrom (?:two|three|four|five|six|ten)(?: \w+)?(?: on\b|[,;.])": "with N or more",
    r"\bas (?:it|they) stands?\b": "unchanged",
    r"\bthe prints?\b": "the printed value",
    r"(?<!by\s)(?<!-)\bpeers?\b": "third-party counters",
    r"\bdoubts?\b": "warnings",
    r"(?<!\s{8})\bceilings?\b": "machine peak, or roofline",
    r"\b(?:by|in) turns\b": "interleaved",
    r"\bshortage\b": "out of memory",
    r"\bkept for (?:the )?backward\b": "saved for backward",
    r"\bversus\b": "comparison with",
}


def python(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every string of several words."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def markdown(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every paragraph, its code blanked out."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"(?ms)^```.*?^```|`[^`]*`", lambda code: re.sub(r".", "_", code[0]), text)
    for paragraph in re.finditer(r"(?:.+\n)+", text):
        yield text.count("\n", 0, paragraph.start()) + 1, paragraph[0]


def findings() -> Iterator[str]:
    """What is found where, and what to write."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    texts = [(p, *each) for p in sorted((ROOT / "datbench").rglob("*.py")) for each in python(p)]
    texts += [(p, *each) for p in pages for each in markdown(p)]
    for path, line, text in texts:
        for pattern, instead in PATTERNS.items():
            for match in re.finditer(pattern.replace(" ", r"\s+"), text):
                at = line + text.count("\n", 0, match.start())
                found = " ".join(match[0].split())
                yield f"{path.relative_to(ROOT)}:{at}: {found!r}; {instead}"


if __name__ == "__main__":
    sys.exit("\n".join(findings()) or 0)
