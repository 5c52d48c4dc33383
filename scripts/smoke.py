"""A quick check of an installed package that needs only torch: values, gradients, volumes, dtypes, errors.

    python scripts/smoke.py [--device cuda]

It calls every operator of the library at least once.
"""

from __future__ import annotations

import argparse

import torch

import ssim_fused
from ssim_fused import L1SSIMLoss, ms_ssim, ssim


def check(is_right: bool, what: str) -> None:
    """Like assert, but python -O does not remove it."""
    if not is_right:
        raise SystemExit(f"smoke test: {what} is wrong")


def textbook(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """SSIM with a uniform window of 7x7, by the paper's formula."""
    mean = lambda z: torch.nn.functional.avg_pool2d(torch.nn.functional.pad(z, (3,) * 4, "reflect"), 7, 1)  # noqa: E731
    mu_x, mu_y = mean(x), mean(y)
    var_x, var_y, cov = mean(x * x) - mu_x**2, mean(y * y) - mu_y**2, mean(x * y) - mu_x * mu_y
    luminance = (2 * mu_x * mu_y + 1e-4) / (mu_x**2 + mu_y**2 + 1e-4)
    return (luminance * (2 * cov + 9e-4) / (var_x + var_y + 9e-4)).mean()


def every_check(device: str) -> None:
    """Run all checks. Raises SystemExit at the first that fails."""
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(2, 3, 48, 50, generator=generator, dtype=torch.float64)
    x = y + 0.1 * torch.randn(y.shape, generator=generator, dtype=torch.float64)
    x, y = x.to(device).requires_grad_(), y.to(device)
    window = {"gaussian_kernel": False, "kernel_size": 7, "data_range": 1.0}
    value, expected = ssim(x, y, **window), textbook(x, y)
    (slope,), (expected_slope,) = torch.autograd.grad(value, x), torch.autograd.grad(expected, x)
    check(bool((value - expected).abs() < 1e-10), "the value")
    check(bool((slope - expected_slope).abs().max() < 1e-10), "the gradient")
    check(float(ssim(y, y, data_range=1.0)) == 1, "SSIM of identical images")
    # From the third call with the same arguments on, calls are prepared. Below, a retained gradient must not be scaled
    # in place by the backward.
    for factor in (2, 3, 4):
        leaf = x.detach().float().requires_grad_()
        (factor * ssim(leaf, y.float(), data_range=1.0)).backward()
        check(leaf.grad is not None and bool(leaf.grad.isfinite().all()), "a gradient times a factor")
    leaf = x.detach().requires_grad_()
    kept = 2 * ssim(leaf, y, data_range=0.9)
    first, second = (torch.autograd.grad(kept, leaf, retain_graph=True)[0] for _ in range(2))
    check(torch.equal(first, second), "a gradient that is asked for twice")
    picture = ssim(x, y, data_range=1.0, return_full_image=True)[1]
    (slope,) = torch.autograd.grad(picture.sum(), x)
    check(bool(slope.isfinite().all()), "the gradient of the map")
    with torch.no_grad():
        full = torch.func.grad(lambda z: 2 * ssim(z, y, data_range=1.0))(x.detach())
    check(bool(full.isfinite().all()), "the gradient by torch.func")
    x = x.detach()
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        found = ssim(x.to(dtype), y.to(dtype), data_range=1.0)
        check(found.dtype == dtype and abs(float(found) - float(ssim(x, y, data_range=1.0))) < 0.02, str(dtype))
    volume = torch.rand(1, 1, 9, 12, 14, generator=generator).to(device)
    check(0 < float(ssim(0.9 * volume, volume, data_range=1.0)) < 1, "SSIM of volumes")
    check(float(ms_ssim(y, y, data_range=1.0, betas=(0.5, 0.5))) == 1, "MS-SSIM")
    check(float(L1SSIMLoss()(y, y)) == 0, "the loss of identical images")
    check(float(ssim(y, y, data_range=1.0, mask=y[:, :1] > 0.3)) == 1, "SSIM of identical images with a mask")
    integers = (255 * y).to(torch.uint8)
    check(float(ssim(integers, integers)) == 1, "SSIM of identical integers")
    try:
        ssim(y, y[:1], data_range=1.0)
    except RuntimeError as error:
        check("shape" in str(error), "the message for other shapes")
    else:
        raise SystemExit("smoke test: other shapes were taken")


OPERATORS_OF_IMAGES = {
    *("similarity", "similarity_backward", "multiscale", "multiply_gradient", "multiply_gradient_"),
    *("prepared", "prepared_value", "prepared_multiply_"),
}


def main() -> None:
    """Run the checks, and verify which operators they called and what is loaded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        every_check(device)
    called = {event.name.removeprefix("ssim_fused::") for event in profiler.events() if "ssim_fused::" in event.name}
    missing = OPERATORS_OF_IMAGES - called
    check(not missing, f"the set of operators that were called, without {', '.join(sorted(missing))}:")
    info = ssim_fused.build_info()
    loaded = torch._C._dispatch_has_kernel_for_dispatch_key("ssim_fused::similarity", "CUDA")
    gpus_of_torch = torch.version.cuda or torch.version.hip  # torch calls AMD's GPUs "cuda", too
    check(loaded == bool(info["cuda"] and gpus_of_torch), "whether the CUDA kernels are loaded")
    print(f"ssim_fused {ssim_fused.__version__} with torch {torch.__version__}: passed; CUDA loaded: {loaded}; {info}")


if __name__ == "__main__":
    main()
