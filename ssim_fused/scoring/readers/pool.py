"""Worker processes for decoders that may crash or hang: started when needed, reused, and replaced when they die."""

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

TIMEOUT = 120.0  # seconds for one frame, after which its decoder is taken to hang

# Loads this package under a name of its own, so that ssim_fused, and torch with it, are not imported.
_PROGRAM = """
import importlib.util, json, sys
folder, sys.path[:] = sys.argv[1], json.loads(sys.argv[2])
spec = importlib.util.spec_from_file_location("readers", folder + "/__init__.py", submodule_search_locations=[folder])
sys.modules["readers"] = importlib.util.module_from_spec(spec)
from readers.worker import main
main()
"""


class Worker:
    """One process, used by one thread at a time."""

    def __init__(self) -> None:
        if not sys.executable:
            raise ReadError("is read in a process of its own, and there is no Python interpreter to start it with")
        self._shared = shared_file()
        arguments = [str(Path(__file__).parent), json.dumps([str(entry) for entry in sys.path]), str(self._shared)]
        # A session of its own: Ctrl-C interrupts the parent, whose end ends the worker.
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            pass_fds=[self._shared], start_new_session=True,
        )  # fmt: skip
        self._late = False

    def open(self, data: bytes, limits: Limits) -> int:
        """Opens a file; returns its number of frames."""
        request = {"do": "open", "data_range": limits.data_range, "max_pixels": limits.max_pixels}
        return self._asked(request, data)[0]["count"]

    def frame(self, number: int) -> Samples:
        """Decodes a frame of the file that was opened last."""
        import numpy as np

        about, pixels = self._asked({"do": "frame", "number": number}, b"")
        return Samples(np.frombuffer(pixels, about["dtype"]).reshape(about["shape"]), about["white"])

    @property
    def alive(self) -> bool:
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
        except BaseException:  # An interrupt between question and answer would leave the two out of step.
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
        except subprocess.TimeoutExpired:  # It lives, and answers nonsense.
            self._process.kill()
            code = self._process.wait()
        if self._late:
            return f"its decoder took more than {TIMEOUT:g} s and was stopped"
        if code == -signal.SIGKILL:
            return "its decoder was killed (SIGKILL), as the system does when memory runs out"
        with suppress(ValueError):
            return f"its decoder crashed ({signal.Signals(-code).name}); the file is broken or hostile"
        return f"its decoder ended with exit status {code}"

    def close(self) -> None:
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
    """Idle workers of this process."""

    def __init__(self) -> None:
        self._lock, self._idle, self._owner = threading.Lock(), [], os.getpid()
        atexit.register(self.close)

    @contextmanager
    def lease(self) -> Generator[Worker]:
        """A worker for one file; at most one for each thread that reads is ever started."""
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
            if self._owner != os.getpid():  # The workers of a process that forked are its own.
                self._idle, self._owner = [], os.getpid()
            while self._idle:
                worker = self._idle.pop()
                if worker.alive:
                    return worker
                worker.close()
        return None

    def close(self) -> None:
        with self._lock:
            if self._owner == os.getpid():
                for worker in self._idle:
                    worker.close()
            self._idle = []


POOL = _Pool()
