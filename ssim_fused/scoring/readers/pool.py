"""Manages worker processes for decoders that may crash or hang. They are started on demand, reused, and replaced."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .messages import receive, send, shared_file
from .samples import Limits, ReadError, Samples

TIMEOUT = 120.0  # seconds per frame; a decoder that takes longer is stopped

# Loads this package under its own name, so that ssim_fused and torch are not imported.
_PROGRAM = """
import importlib.util, json, sys
folder, sys.path[:] = sys.argv[1], json.loads(sys.argv[2])
spec = importlib.util.spec_from_file_location("readers", folder + "/__init__.py", submodule_search_locations=[folder])
sys.modules["readers"] = importlib.util.module_from_spec(spec)
from readers.worker import main
main()
"""


class Worker:
    """A worker process, used by one thread at a time."""

    def __init__(self) -> None:
        if not sys.executable:
            raise ReadError(
                "this format is read in a worker process, but sys.executable is empty; run a Python interpreter"
            )
        self._shared = shared_file()
        arguments = [str(Path(__file__).parent), json.dumps([str(entry) for entry in sys.path]), str(self._shared)]
        # In its own session, the worker does not receive Ctrl-C. It exits when its parent does.
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            pass_fds=[self._shared], start_new_session=True,
        )  # fmt: skip
        self._late = False

    def open(self, data: bytes, limits: Limits) -> int:
        """Opens a file and returns its number of frames."""
        request = {"do": "open", "data_range": limits.data_range, "max_pixels": limits.max_pixels}
        return self._asked(request, data)[0]["count"]

    def frame(self, number: int) -> Samples:
        """Decodes a frame of the file opened last."""
        import numpy as np

        about, pixels = self._asked({"do": "frame", "number": number}, b"")
        return Samples(np.frombuffer(pixels, about["dtype"]).reshape(about["shape"]), about["white"])

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    def _asked(self, request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytearray]:
        assert self._process.stdin
        assert self._process.stdout
        timer = threading.Timer(TIMEOUT, self._expire)
        timer.start()
        try:
            send(self._process.stdin, request, self._shared, data)
            answer, payload = receive(self._process.stdout, self._shared)
        except (OSError, EOFError, KeyError, TypeError, ValueError) as error:
            raise ReadError(self._obituary()) from error
        except BaseException:  # after an interrupt, the next request would receive the answer to this one
            self._process.kill()
            raise
        finally:
            timer.cancel()
        if "error" in answer:
            raise ReadError(answer["error"])
        return answer, payload

    def _expire(self) -> None:
        self._late = True
        self._process.kill()

    def _obituary(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:  # the process is running, but sent an invalid message
            self._process.kill()
            code = self._process.wait()
        if self._late:
            return f"the decoder took more than {TIMEOUT:g} s and was stopped"
        if code == -signal.SIGKILL:
            return "the decoder was killed (SIGKILL), which happens when memory runs out"
        with suppress(ValueError):
            return f"the decoder crashed ({signal.Signals(-code).name}); the file is broken or malicious"
        return f"the decoder exited with status {code}"

    def close(self) -> None:
        """Kills the process and frees its resources."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with suppress(OSError):
                    pipe.close()
        self._process.wait()
        if self._shared >= 0:
            os.close(self._shared)
            self._shared = -1


class _Pool:
    """The idle workers of this process."""

    def __init__(self) -> None:
        self._lock, self._idle, self._owner = threading.Lock(), [], os.getpid()
        atexit.register(self.close)

    @contextmanager
    def lease(self) -> Generator[Worker]:
        """Lends a worker for one file. At most one worker per reading thread is started."""
        worker = self._taken() or Worker()
        try:
            yield worker
        finally:
            if worker.alive:
                with self._lock:
                    self._idle.append(worker)
            else:
                worker.close()

    def _taken(self) -> Worker | None:
        with self._lock:
            if self._owner != os.getpid():  # after a fork, the workers belong to the parent process
                self._idle, self._owner = [], os.getpid()
            while self._idle:
                worker = self._idle.pop()
                if worker.alive:
                    return worker
                worker.close()
        return None

    def close(self) -> None:
        """Closes the idle workers."""
        with self._lock:
            if self._owner == os.getpid():
                for worker in self._idle:
                    worker.close()
            self._idle = []


POOL = _Pool()
