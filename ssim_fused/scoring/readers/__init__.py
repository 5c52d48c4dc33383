"""Readers of picture files, one per format, each tested against files written by another library.

``formats.py`` detects the format by the first bytes of a file. A reader takes the bytes of a file and returns the
number of its frames and a function that decodes one frame to :class:`~samples.Raw`. ``rules.py`` applies the rules that
all formats share. Native decoders that may crash run in ``worker.py``, a process started by ``pool.py``.

This package imports neither ``ssim_fused`` nor torch, so that a worker process starts quickly.
"""
