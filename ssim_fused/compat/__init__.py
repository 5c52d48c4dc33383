"""Other packages' SSIM by this package's kernels: one module for each, with its names, arguments and defaults.

``from ssim_fused.compat.pytorch_msssim import ssim`` in place of ``from pytorch_msssim import ssim`` keeps the numbers,
also where a package computes what its authors did not mean. There, ``corrected=True`` computes what the paper says;
docs/migration.md has the table. An image of 8- or 16-bit integers has the range of its type if none is given.
"""
