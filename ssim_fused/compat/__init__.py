"""Drop-in replacements for the SSIM functions of other packages: one module per package.

Each module has the names, arguments and defaults of its package and computes with the kernels of ssim_fused. Replacing
``from pytorch_msssim import ssim`` by ``from ssim_fused.compat.pytorch_msssim import ssim`` keeps the results, even
where the package deviates from the paper. ``corrected=True`` computes what the paper defines; the table in
``docs/migration.md`` lists the differences. If no range is given, 8- and 16-bit integer images have the range of their
dtype.
"""
