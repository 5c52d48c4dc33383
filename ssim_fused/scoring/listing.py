"""Reads pairs from a CSV file, as programs and spreadsheets save it.

Excel alone saves UTF-8 with a byte order mark, the Windows code page, or UTF-16 with tabs, and takes the separator from
the regional settings. All of these are read. A line that cannot be read is an error that names the line.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections.abc import Iterator, Sequence

from ssim_fused.scoring.errors import UsageError
from ssim_fused.scoring.pairs import Masks, Pair, check_any, is_video
from ssim_fused.scoring.stream import STREAM, is_stream

COLUMNS = ("reference", "distorted", "mask")
SEPARATORS = (",", ";", "\t")

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
          (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip

Row = tuple[int, list[str]]  # the number of the line, and its cells


def read_pairs(listing: str, mask: str | None = None) -> list[Pair]:
    """Reads pairs from a CSV file with the columns ``reference``, ``distorted`` and, optionally, ``mask``.

    The first line may name the columns, in any case and order. Separators are commas, semicolons or tabs. The encoding
    is UTF-8, UTF-16 with a byte order mark, or Windows-1252. Relative paths start at the current folder. Whether the
    files exist is not checked here: a missing file is an error of its pair.

    Args:
        listing: path of the CSV file.
        mask: the mask of lines without one: a picture or a folder, as for :func:`find_pairs`.

    Raises:
        UsageError: the file cannot be read or has no pairs, or a line does not have two or three columns.

    Example:
        >>> from ssim_fused.scoring import read_pairs
        >>> read_pairs("pairs.csv")[0].reference
        'clean/cat.png'

    """
    try:
        with open(listing, "rb") as file:
            content = file.read()
    except (OSError, ValueError) as error:
        raise UsageError(f"--pairs {listing}: {getattr(error, 'strerror', None) or error}.") from error
    masks = Masks(mask)
    rows = _named(listing, _rows(listing, _text(listing, content)))
    pairs = [_listed(listing, line, row, masks) for line, row in rows]
    check_any(pairs, f"--pairs {listing}")
    return pairs


def _text(listing: str, content: bytes) -> str:
    """Decodes the file. Bytes that are not UTF-8 become surrogates, which :func:`_path` resolves."""
    if content.startswith(b"PK\x03\x04"):
        raise UsageError(f"--pairs {listing} is a spreadsheet (.xlsx, .ods); expected CSV; save it as CSV.")
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    if encoding is None and b"\0" in content[:4]:  # UTF-16 without a byte order mark: every second byte of ASCII is 0
        encoding = "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    try:
        return content.decode(encoding or "utf-8", "strict" if encoding else "surrogateescape")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UsageError(f"--pairs {listing}, line {line}: not valid {encoding}: {error.reason}.") from error


def _path(cell: str) -> str:
    """Decodes a cell that is not UTF-8: as the file name with these bytes if it exists, otherwise as Windows-1252."""
    if cell.isascii() or not any("\udc80" <= c <= "\udcff" for c in cell) or os.path.lexists(cell):
        return cell
    try:
        return cell.encode("utf-8", "surrogateescape").decode("cp1252")
    except UnicodeDecodeError:
        return cell


def _rows(listing: str, text: str) -> list[Row]:
    """Returns the rows that are not empty, split by the separator that fits best."""
    mark = re.match(r"sep=(.)(\r\n|\r|\n)", text, re.IGNORECASE)
    if mark:  # a line that Excel writes to state the separator
        return _parsed(listing, text[mark.end() :], mark[1], 1)
    tried: list[tuple[tuple[int, int, int], list[Row]]] = []
    problem: UsageError | None = None
    for separator in SEPARATORS:
        try:
            rows = _parsed(listing, text, separator, 0)
        except UsageError as error:
            problem = problem or error
            continue
        tried.append((_fitness(rows), rows))
    if not tried:
        raise problem or UsageError(f"--pairs {listing} cannot be read.")
    # max() returns the first of equals, so that commas win a tie.
    return max(tried, key=lambda entry: entry[0])[1]


def _fitness(rows: Sequence[Row]) -> tuple[int, int, int]:
    """Rates a separator by the header, then by the rows with two or three columns, then by the files that exist."""
    header = bool(rows) and set(COLUMNS[:2]) <= {cell.lower() for cell in rows[0][1]}
    fitting = sum(2 <= len(cells) <= len(COLUMNS) for _, cells in rows)
    there = sum(all(os.path.lexists(cell) for cell in cells if cell) for _, cells in rows[:20])
    return int(header), fitting, there


def _parsed(listing: str, text: str, separator: str, before: int) -> list[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    rows: list[Row] = []
    line = before + 1
    try:
        for row in reader:
            cells = [_path(cell.strip()) for cell in row]
            while cells and not cells[-1]:  # spreadsheets pad rows to the widest
                cells.pop()
            if cells:
                rows.append((line, cells))
            line = before + reader.line_num + 1
    except csv.Error as error:
        raise UsageError(f"--pairs {listing}, line {before + reader.line_num}: {error}.") from error
    return rows


def _named(listing: str, rows: Sequence[Row]) -> Iterator[Row]:
    """Yields the rows with their cells in the order of ``COLUMNS``, without a header line."""
    names = [cell.lower() for cell in rows[0][1]] if rows else []
    if not set(COLUMNS[:2]) <= set(names):
        yield from rows
        return
    unknown = [name for name in names if name not in COLUMNS]
    if unknown or len(set(names)) < len(names):
        raise UsageError(
            f"--pairs {listing}, line {rows[0][0]}: the columns are {', '.join(names)}; expected reference, distorted "
            "and, optionally, mask."
        )
    for line, cells in rows[1:]:
        if len(cells) > len(names):
            yield line, cells  # `_listed` refuses it for its number of columns
            continue
        by_name = dict(zip(names, cells, strict=False))
        yield line, [by_name.get(name, "") for name in (COLUMNS if "mask" in by_name else COLUMNS[:2])]


def _listed(listing: str, line: int, row: Sequence[str], masks: Masks) -> Pair:
    where = f"--pairs {listing}, line {line}"
    if len(row) not in (2, 3):
        raise UsageError(
            f"{where}: number of columns is {len(row)}; expected 2 or 3: reference,distorted or "
            "reference,distorted,mask."
        )
    reference, distorted = row[:2]
    if not reference or not distorted:
        raise UsageError(f"{where}: {'distorted' if reference else 'reference'} is empty; give a path in each column.")
    if STREAM in row:
        raise UsageError(f"{where}: '-' (standard input) cannot be listed; give it as an argument.")
    for cell in row:
        if is_stream(cell):
            raise UsageError(f"{where}: {cell!r} is a FIFO, which cannot be listed; give it as an argument.")
    if any("\0" in cell for cell in row):
        raise UsageError(f"{where}: a path has a null byte; remove it.")
    sequence = is_video(reference) or is_video(distorted)
    mask = row[2] if len(row) == 3 and row[2] else masks.of(os.path.basename(reference))
    error = masks.missing(mask, reference)
    return Pair(reference, distorted, sequence, mask, error, input=listing, origin=f"{listing}, line {line}")
