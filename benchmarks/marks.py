"""Generated parts of pages: the text between `<!-- NAME:begin -->` and `<!-- NAME:end -->`."""

from __future__ import annotations

from pathlib import Path


def rewrite(path: Path, content: str, name: str = "bench") -> None:
    """Put the content between the two marks. Raises ValueError if the file lacks them."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    text = path.read_text()
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"{path} needs the lines {begin} and {end}, once each")
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    path.write_text(f"{head}{begin}\n{content}{end}{tail}")
    print(f"wrote the tables of {path}")
