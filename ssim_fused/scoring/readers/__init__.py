"""Readers of picture files: one for each format, each measured against files that another library wrote.

``formats.py`` tells the format from a file's first bytes. A reader opens a file's bytes and returns its number of
frames and a function that decodes one of them to :class:`~samples.Raw`; ``samples.py`` applies the rules that all
formats share. Decoders that are native code with a history run in ``worker.py``, a process that ``pool.py`` starts.

This package imports nothing of ``ssim_fused`` and no torch, so that a worker process starts quickly.
"""
