"""Charts as SVG: legible on a phone, and dark where the page is dark.

Colors are CSS classes with a light and a dark value, so that one file serves both. An SVG image follows the
`color-scheme` of the page that embeds it, or the system's if the page has none. Charts are `WIDTH` pixels wide: on a
phone their text is not smaller than 10 pixels, and two of them fit side by side on a screen.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

WIDTH = 440

STYLE = """
  text { font: 12px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #343a40; }
  .title { font-size: 16px; font-weight: 600; }
  .case { font-weight: 600; }
  .small { font-size: 11px; }
  .ours { fill: #c2410c; font-weight: 600; }
  .end { text-anchor: end; }
  .middle { text-anchor: middle; }
  .bar { fill: #adb5bd; }
  .bar-ours, .dot0, .dot3 { fill: #d9480f; stroke: #d9480f; }
  .line { stroke: #dee2e6; }
  .bound { stroke: #1864ab; stroke-dasharray: 4 3; }
  .bound-text { fill: #1864ab; }
  .dot1 { fill: #1864ab; stroke: #1864ab; }
  .dot2 { fill: #2b8a3e; stroke: #2b8a3e; }
  .dot4 { fill: #4dabf7; stroke: #4dabf7; }
  .dot5 { fill: #862e9c; stroke: #862e9c; }
  .hollow { fill: none; stroke-width: 1.5; }
  @media (prefers-color-scheme: dark) {
    text { fill: #dee2e6; }
    .ours { fill: #ff922b; }
    .bar { fill: #6c757d; }
    .bar-ours, .dot0, .dot3 { fill: #f76707; stroke: #f76707; }
    .line { stroke: #495057; }
    .bound { stroke: #74c0fc; }
    .bound-text { fill: #74c0fc; }
    .dot1 { fill: #4c9be8; stroke: #4c9be8; }
    .dot2 { fill: #51cf66; stroke: #51cf66; }
    .dot4 { fill: #a5d8ff; stroke: #a5d8ff; }
    .dot5 { fill: #cc5de8; stroke: #cc5de8; }
    .hollow { fill: none; }
  }
"""


class Chart:
    """Collects shapes from top to bottom; coordinates are pixels of a chart `WIDTH` wide."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.parts: list[str] = []

    def text(self, x: float, y: float, text: str, classes: str = "") -> None:
        """Write a line of text, whose baseline is at y."""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{classes}">{escape(text)}</text>')

    def bar(self, x: float, y: float, width: float, height: float, classes: str) -> None:
        """Draw a bar; one of no width is still visible."""
        size = f'width="{max(width, 1):.1f}" height="{height:.1f}"'
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" {size} class="{classes}"/>')

    def line(self, x1: float, y1: float, x2: float, y2: float, classes: str = "line") -> None:
        """Draw a line."""
        ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        self.parts.append(f'<line {ends} class="{classes}"/>')

    def dot(self, x: float, y: float, classes: str) -> None:
        """Draw a point."""
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="{classes}"/>')

    def write(self, path: Path, height: float) -> None:
        """Write the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        size = f'viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n<title>{escape(self.title)}</title>'
        path.write_text("\n".join([head, f"<style>{STYLE}</style>", *self.parts, "</svg>\n"]))
