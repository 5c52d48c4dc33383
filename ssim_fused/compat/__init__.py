"""Other packages' SSIM by this package's kernels: one module for each, with its names, arguments and defaults.

``from ssim_fused.compat.pytorch_msssim import ssim`` in place of ``from pytorch_msssim import ssim`` keeps the numbers.
Where a package computes what its authors did not mean, the module does what the paper says; docs/migration.md has the
table.
"""
