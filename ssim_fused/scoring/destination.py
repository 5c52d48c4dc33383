"""Writes results to standard output, a file, or a device.

A regular file appears under its name only when it is complete. It keeps the permissions of the file that it replaces,
and links are followed. Devices and FIFOs are written to directly. Errors are detected when a destination is opened,
before scoring starts.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TextIO

from ssim_fused.scoring.errors import OutputError, UsageError, one_line

# Undecodable bytes in file names, and characters that the encoding lacks, are escaped, so that writing never fails.
_ERRORS = "backslashreplace"


class Destination:
    """A destination of text.

    Args:
        path: path of the file, or None for standard output.

    Attributes:
        gone: whether the reader has exited (``| head``). Text written after that is dropped.
        regular: path of the regular file that is replaced, or None for any other destination.

    Raises:
        UsageError: the path cannot be written, or standard output is closed.

    """

    def __init__(self, path: str | None) -> None:
        self.gone = False
        self.regular: str | None = None
        self._name = "standard output" if path is None else repr(path)
        self._finish: Callable[[], None] = lambda: None
        self._undo: Callable[[], None] = lambda: None
        if path is None:
            self._file = _standard_output()
            return
        try:
            self._file = self._opened(path)
        except UsageError:
            raise
        except (OSError, ValueError) as error:  # ValueError: the path has a null byte
            raise UsageError(f"{path!r} cannot be written: {getattr(error, 'strerror', None) or error}.") from error

    def _opened(self, path: str) -> TextIO:
        # A link in /dev or /proc, such as /dev/stdout, may lead to a regular file that the shell has opened. Replacing
        # that file would bypass the shell's descriptor.
        named_in = os.path.realpath(os.path.dirname(path) or ".")
        if named_in == "/dev" or named_in.startswith("/proc/"):
            return self._through(path)
        target = os.path.realpath(path)
        with contextlib.suppress(FileNotFoundError):
            os.stat(target)  # rejects a name that is too long, before scoring; that of the temporary file is short
        if os.path.isdir(target) or path.endswith(os.sep):
            raise UsageError(f"{path!r} is a folder; expected the path of a file.")
        if os.path.exists(target) and not os.path.isfile(target):
            return self._through(path)
        if os.path.exists(target) and not os.access(target, os.W_OK):
            raise PermissionError(13, "Permission denied")
        self.regular = target
        folder = os.path.dirname(target)
        if os.path.exists(target) and os.path.isdir(folder) and not os.access(folder, os.W_OK | os.X_OK):
            return self._in_place(target)
        return self._replacing(target)

    def _through(self, path: str) -> TextIO:
        """Opens a device or a FIFO, without truncating, creating or replacing anything."""
        file = _text_file(os.open(path, os.O_WRONLY | os.O_APPEND))
        self._finish, self._undo = file.close, lambda: _close(file)
        return file

    def _in_place(self, target: str) -> TextIO:
        """Opens a file in a folder without write permission: the text is kept in memory and written at the end."""
        kept = io.StringIO(newline="")

        def finish() -> None:
            with _text_file(os.open(target, os.O_WRONLY | os.O_TRUNC)) as file:
                file.write(kept.getvalue())

        self._finish = finish
        return kept

    def _replacing(self, target: str) -> TextIO:
        """Opens a temporary file, which replaces ``target`` at the end."""
        handle, temporary = tempfile.mkstemp(dir=os.path.dirname(target), prefix=".ssim_fused.")
        file = _text_file(handle)

        def finish() -> None:
            with file:
                file.flush()
                _take_permissions(file.fileno(), target)
            os.replace(temporary, target)

        def undo() -> None:
            _close(file)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)

        self._finish, self._undo = finish, undo
        return file

    def write(self, text: str) -> None:
        """Writes text.

        Raises:
            OutputError: the text cannot be written, for example because the disk is full.

        """
        if not self.gone:
            with self._errors():
                self._file.write(text)

    def flush(self) -> None:
        """Flushes the text, which also detects whether a reader still exists."""
        if not self.gone:
            with self._errors():
                self._file.flush()

    def close(self) -> None:
        """Completes the file.

        Raises:
            OutputError: the file cannot be completed. It is left as it was before.

        """
        try:
            self.flush()
            with self._errors():
                self._finish()
        except OutputError:
            self._undo()
            raise

    def discard(self) -> None:
        """Drops the text and leaves the file as it was before."""
        self._undo()

    @contextmanager
    def _errors(self) -> Generator[None]:
        try:
            yield
        except BrokenPipeError:
            self.gone = True
            self._let_go()
        except OSError as error:
            self._let_go()
            raise OutputError(f"{self._name} cannot be written: {error.strerror or error}.") from error

    def _let_go(self) -> None:
        if self._file is sys.stdout:
            let_go_of_standard_output()


def complain(message: str) -> None:
    """Prints a line on standard error. A closed standard error is ignored, so that the exit status stays correct."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(f"ssim-fused: {one_line(message)}", file=sys.stderr, flush=True)


def let_go_of_standard_output() -> None:
    """Discards the buffer of standard output if it cannot be written; the interpreter would fail on it at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):  # standard output may be an object without a descriptor
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, sys.stdout.fileno())
            os.close(nothing)
    except AttributeError:  # standard output is closed
        return


def _text_file(handle: int) -> TextIO:
    return os.fdopen(handle, "w", encoding="utf-8", errors=_ERRORS, newline="")


def _close(file: TextIO) -> None:
    """Closes a file whose content does not matter. Its error, such as a full disk, was reported before."""
    with contextlib.suppress(OSError):
        file.close()


def _standard_output() -> TextIO:
    if sys.stdout is None:
        raise UsageError("standard output is closed; give --output FILE.")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=_ERRORS)
    return sys.stdout


def _take_permissions(handle: int, target: str) -> None:
    """Gives a temporary file the permissions of the file that it replaces, or those of a new file."""
    try:
        before = os.stat(target)
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        os.fchmod(handle, 0o666 & ~mask)
        return
    with contextlib.suppress(PermissionError):  # only root may change the owner
        os.fchown(handle, before.st_uid, before.st_gid)
    os.fchmod(handle, stat.S_IMODE(before.st_mode))


@contextmanager
def destination(path: str | None) -> Generator[Destination]:
    """Opens a destination, which is complete after the block, or unchanged if the block raises."""
    target = Destination(path)
    try:
        yield target
    except BaseException:
        target.discard()
        raise
    target.close()
