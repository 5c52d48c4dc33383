"""A minute's look at an installed package, with nothing but torch: values, gradients, volumes, types, errors."""

from __future__ import annotations

import torch

import ssim_fused
from ssim_fused import L1SSIMLoss, ms_ssim, ssim


def check(is_right: bool, what: str) -> None:
    """An assertion that -O does not remove."""
    if not is_right:
        raise SystemExit(f"smoke test: {what} is wrong")


def textbook(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """SSIM of a uniform window of seven, by the formula of the paper, in float64."""
    mean = lambda z: torch.nn.functional.avg_pool2d(torch.nn.functional.pad(z, (3,) * 4, "reflect"), 7, 1)  # noqa: E731
    mu_x, mu_y = mean(x), mean(y)
    var_x, var_y, cov = mean(x * x) - mu_x**2, mean(y * y) - mu_y**2, mean(x * y) - mu_x * mu_y
    luminance = (2 * mu_x * mu_y + 1e-4) / (mu_x**2 + mu_y**2 + 1e-4)
    return (luminance * (2 * cov + 9e-4) / (var_x + var_y + 9e-4)).mean()


def main() -> None:
    """Every check; raises SystemExit at the first that fails."""
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(2, 3, 48, 50, generator=generator, dtype=torch.float64)
    x = (y + 0.1 * torch.randn(y.shape, generator=generator, dtype=torch.float64)).requires_grad_()
    window = {"gaussian_kernel": False, "kernel_size": 7, "data_range": 1.0}
    value, expected = ssim(x, y, **window), textbook(x, y)
    (slope,), (expected_slope,) = torch.autograd.grad(value, x), torch.autograd.grad(expected, x)
    check(bool((value - expected).abs() < 1e-10), "the value")
    check(bool((slope - expected_slope).abs().max() < 1e-10), "the gradient")
    check(float(ssim(y, y, data_range=1.0)) == 1, "SSIM of identical images")
    x = x.detach()
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        found = ssim(x.to(dtype), y.to(dtype), data_range=1.0)
        check(found.dtype == dtype and abs(float(found) - float(ssim(x, y, data_range=1.0))) < 0.02, str(dtype))
    volume = torch.rand(1, 1, 9, 12, 14, generator=generator)
    check(0 < float(ssim(0.9 * volume, volume, data_range=1.0)) < 1, "SSIM of volumes")
    check(float(ms_ssim(y, y, data_range=1.0, betas=(0.5, 0.5))) == 1, "MS-SSIM")
    check(float(L1SSIMLoss()(y, y)) == 0, "the loss of identical images")
    try:
        ssim(y, y[:1], data_range=1.0)
    except RuntimeError as error:
        check("shape" in str(error), "the message for other shapes")
    else:
        raise SystemExit("smoke test: other shapes were taken")
    info = ssim_fused.build_info()
    loaded = torch._C._dispatch_has_kernel_for_dispatch_key("ssim_fused::similarity", "CUDA")
    check(loaded == bool(info["cuda"] and torch.version.cuda), "whether the CUDA kernels are loaded")
    print(f"ssim_fused {ssim_fused.__version__} with torch {torch.__version__}: passed; CUDA loaded: {loaded}; {info}")


if __name__ == "__main__":
    main()
