"""Training on a GPU: captured steps, streams, images beyond 2^31 elements, failed allocations, scalers, memory.

Skipped without a GPU. Tests for any device run on a GPU too (fixture `device`); these tests cover what only a GPU has.
test_distributed.py tests NCCL, with one process per GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from benchmarks.memory import cuda_peak
from ssim_fused import L1SSIMLoss
from ssim_fused import multiscale_structural_similarity_index_measure as msssim
from ssim_fused import structural_similarity_index_measure as ssim

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="training on CUDA needs a GPU")

Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    "ssim": lambda x, y: 1 - ssim(x, y, data_range=1.0),
    "map": lambda x, y: 1 - ssim(x, y, data_range=1.0, return_full_image=True)[1].mean(),
    "range": lambda x, y: 1 - ssim(x, y),
    "wide": lambda x, y: 1 - ssim(x, y, data_range=1.0, sigma=2.0),  # radius 7: one axis at a time
    "radius 11": lambda x, y: 1 - ssim(x, y, data_range=1.0, sigma=3.0),  # a strip march
    "ms-ssim": lambda x, y: 1 - msssim(x, y, data_range=1.0),
    "l1+ssim": L1SSIMLoss(),
}
SIDE = 192  # MS-SSIM needs 176
# Launches of a step. SSIM: march, reduction; backward. MS-SSIM: halvings, marches, product, gathering; backward.
LAUNCHES = {"ssim": 2 + 1, "ms-ssim": 2 + 5 + 1 + 1 + 1}


@pytest.mark.parametrize("name", LAUNCHES)
def test_the_launches_of_a_step(name: str) -> None:
    noisy, clean = batch(0)
    noisy.requires_grad_()
    LOSSES[name](noisy, clean).backward()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        LOSSES[name](noisy, clean).backward()
        torch.cuda.synchronize()
    names = [event.name for event in profiler.events()]
    assert sum("ssim_fused" in name for name in names) == LAUNCHES[name], names


@pytest.fixture(params=LOSSES)
def loss(request: pytest.FixtureRequest) -> Loss:
    return LOSSES[request.param]


class Gain(nn.Module):
    """A network whose gradients are sums, so that steps repeat bit by bit."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.offset = nn.Parameter(torch.full((3, 1, 1), 0.8)), nn.Parameter(torch.zeros(3, 1, 1))

    def forward(self, noisy: Tensor) -> Tensor:
        return noisy * self.gain + self.offset


def network() -> tuple[Gain, torch.optim.Optimizer]:
    model = Gain().cuda()
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def batch(seed: int, count: int = 2, side: int = SIDE) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(count, 3, side, side, generator=generator)
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=generator)
    return noisy.cuda(), clean.cuda()


def step(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss, noisy: Tensor, clean: Tensor) -> Tensor:
    optimizer.zero_grad(set_to_none=True)
    value = loss(model(noisy), clean)
    value.backward()
    optimizer.step()
    return value.detach()


def value_and_gradient(loss: Loss, noisy: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    noisy = noisy.detach().requires_grad_()
    value = loss(noisy, clean)
    (gradient,) = torch.autograd.grad(value, noisy)
    return value.detach(), gradient


def test_a_captured_step_trains_on_new_data(loss: Loss) -> None:
    """Capture forward, backward and optimizer, as in PyTorch's notes on CUDA graphs."""
    model, optimizer = network()
    noisy, clean = batch(0)
    warm_up = torch.cuda.Stream()
    warm_up.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm_up):
        for _ in range(3):
            step(model, optimizer, loss, noisy, clean)
    torch.cuda.current_stream().wait_stream(warm_up)
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        captured = step(model, optimizer, loss, noisy, clean)

    eager, eager_optimizer = network()
    for _ in range(3):
        step(eager, eager_optimizer, loss, *batch(0))
    for seed in range(1, 4):
        for static, fresh in zip((noisy, clean), batch(seed), strict=True):
            static.copy_(fresh)
        graph.replay()
        expected = step(eager, eager_optimizer, loss, *batch(seed))
        assert torch.equal(captured, expected)
        for ours, theirs in zip(model.parameters(), eager.parameters(), strict=True):
            assert torch.equal(ours, theirs)


def test_a_side_stream_waits_for_its_own_work_only(loss: Loss) -> None:
    """The side stream writes the images late: a kernel on another stream would read NaN."""
    noisy, clean = batch(0)
    expected = value_and_gradient(loss, noisy, clean)
    late = [torch.full_like(image, torch.nan) for image in (noisy, clean)]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(200_000_000)  # cycles: about a tenth of a second
        for empty, image in zip(late, (noisy, clean), strict=True):
            empty.copy_(image)
        found = value_and_gradient(loss, *late)
    side.synchronize()
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_two_streams_at_once(loss: Loss) -> None:
    """Streams share neither scratch nor counters."""
    batches = [batch(seed) for seed in range(2)]
    expected = [value_and_gradient(loss, *images) for images in batches]
    streams = [torch.cuda.Stream() for _ in batches]
    torch.cuda.synchronize()
    found = []
    for _ in range(20):
        for stream, images in zip(streams, batches, strict=True):
            with torch.cuda.stream(stream):
                found.append(value_and_gradient(loss, *images))
    torch.cuda.synchronize()
    for i, results in enumerate(found):
        for ours, theirs in zip(results, expected[i % 2], strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="CUDA: needs two GPUs")
def test_images_on_another_gpu_than_the_current_one(loss: Loss) -> None:
    """The library's own CUDA runtime uses the device of the images, whichever device was current in it before."""
    images = batch(0)
    expected = value_and_gradient(loss, *images)
    for device in (1, 0, 1):
        with torch.cuda.device(0):
            found = value_and_gradient(loss, *(image.to(f"cuda:{device}") for image in images))
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.device.index == device
            assert torch.equal(ours.to(theirs.device), theirs)


def needs_memory(gib: int) -> None:
    if torch.cuda.mem_get_info()[0] < gib << 30:
        pytest.skip(f"CUDA: needs {gib} GiB of GPU memory")


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["ssim", "ms-ssim"])
def test_a_batch_of_more_than_2_to_the_31_elements(name: str) -> None:
    """Each image has the same score and gradient as alone."""
    needs_memory(48)
    function = {"ssim": ssim, "ms-ssim": msssim}[name]
    generator = torch.Generator("cuda").manual_seed(0)
    clean = torch.empty(33, 1, 8192, 8192, dtype=torch.bfloat16, device="cuda")
    noisy = torch.empty_like(clean)
    assert clean.numel() > 2**31
    for image in range(len(clean)):
        clean[image].uniform_(generator=generator)
        noise = torch.randn(clean[image].shape, generator=generator, dtype=torch.bfloat16, device="cuda")
        noisy[image] = clean[image] + 0.01 * (image + 1) * noise

    def run(first: int, last: int) -> tuple[Tensor, Tensor]:
        x = noisy[first:last].detach().requires_grad_()
        values = function(x, clean[first:last], data_range=1.0, reduction="none")
        (gradient,) = torch.autograd.grad(values.sum(), x)
        return values.detach(), gradient

    values, gradient = run(0, len(clean))
    for image in (0, len(clean) // 2, len(clean) - 1):
        alone, its_gradient = run(image, image + 1)
        # Both results are rounded to bfloat16, from sums in a different order.
        torch.testing.assert_close(values[image : image + 1], alone, rtol=2**-7, atol=0)
        torch.testing.assert_close(gradient[image : image + 1], its_gradient, rtol=2**-6, atol=1e-12)


@pytest.mark.nightly
def test_a_plane_of_more_than_2_to_the_31_elements() -> None:
    """The last pixels have the same gradient as in a crop, except for the number of pixels in the mean."""
    needs_memory(48)
    side, corner, kept = 46400, 512, 256  # a window and its adjoint reach ten pixels
    generator = torch.Generator("cuda").manual_seed(0)
    shape = (1, 1, side, side)
    clean = torch.rand(shape, generator=generator, dtype=torch.bfloat16, device="cuda")
    noisy = torch.rand(shape, generator=generator, dtype=torch.bfloat16, device="cuda")
    assert clean.numel() > 2**31
    _, gradient = value_and_gradient(LOSSES["ssim"], noisy, clean)
    last = [image[..., -corner:, -corner:].float() for image in (noisy, clean)]
    _, expected = value_and_gradient(LOSSES["ssim"], *last)
    found = gradient[..., -kept:, -kept:].float() * side**2
    expected = expected[..., -kept:, -kept:] * corner**2
    # The stored gradient is rounded to bfloat16.
    torch.testing.assert_close(found, expected, rtol=2**-7, atol=2**-7 * expected.abs().max().item())


@pytest.fixture
def full_memory() -> Iterator[None]:
    """Limits memory, during the test, to what is allocated now."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    yield torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / total)
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("name", ["ssim", "wide", "ms-ssim"])
def test_the_call_after_a_failed_allocation_works(name: str, request: pytest.FixtureRequest) -> None:
    noisy, clean = batch(0, count=8, side=512)
    expected = value_and_gradient(LOSSES[name], noisy, clean)
    request.getfixturevalue("full_memory")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="memory"):
            value_and_gradient(LOSSES[name], noisy, clean)
    torch.cuda.set_per_process_memory_fraction(1.0)
    for ours, theirs in zip(value_and_gradient(LOSSES[name], noisy, clean), expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_scaler_trains_and_skips_what_overflows(loss: Loss, dtype: torch.dtype) -> None:
    model = nn.Conv2d(3, 3, 5, padding=2)
    nn.init.dirac_(model.weight)  # initially the identity, in 16 bits
    nn.init.zeros_(model.bias)
    model = model.cuda()
    optimizer, scaler = torch.optim.Adam(model.parameters(), lr=1e-3), torch.amp.GradScaler("cuda")
    noisy, clean = batch(0)

    def scaled_step(images: Tensor) -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype=dtype):
            value = loss(model(images), clean)
        assert value.dtype == torch.float32
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()
        return value.detach()

    first = scaled_step(noisy)
    assert scaler.get_scale() == 65536
    for _ in range(20):
        last = scaled_step(noisy)
    assert last < first
    assert scaler.get_scale() == 65536
    before = [parameter.clone() for parameter in model.parameters()]
    scaled_step(torch.full_like(noisy, torch.inf))
    assert scaler.get_scale() == 32768
    assert all(map(torch.equal, before, model.parameters()))
    assert scaled_step(noisy).isfinite()


@pytest.mark.parametrize("name", ["ssim", "wide", "ms-ssim", "l1+ssim"])
def test_reduce_overhead_captures_a_training_step(name: str) -> None:
    """Inductor captures forward and backward of the compiled step as CUDA graphs and skips nothing."""
    pytest.importorskip("triton")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    loss = LOSSES[name]
    model, optimizer = network()
    eager, eager_optimizer = network()
    compiled = torch.compile(lambda x, y: loss(model(x), y), fullgraph=True, mode="reduce-overhead")
    for seed in range(5):
        noisy, clean = batch(seed)
        expected = step(eager, eager_optimizer, loss, noisy, clean)
        torch.compiler.cudagraph_mark_step_begin()
        optimizer.zero_grad()
        value = compiled(noisy, clean)
        value.backward()
        optimizer.step()
        # The graph multiplies by the upstream gradient and adds up in a different order, so rounding errors differ.
        torch.testing.assert_close(value.detach(), expected, rtol=1e-5, atol=1e-7)
        for ours, theirs in zip(model.parameters(), eager.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert torch._dynamo.utils.counters["inductor"]["cudagraph_skips"] == 0
    torch._dynamo.reset()


def peak(run: Callable[[], object]) -> int:
    """Return the peak memory of a call in bytes, beyond what was allocated before it. The first call warms up."""
    run()
    return cuda_peak(run)


# The memory of a value and of a step with one gradient, in images. The levels of MS-SSIM need a third of an image for
# each of preds, target and the gradient. Sums of blocks are small.
IMAGES = {"ssim": (0, 1), "l1+ssim": (0, 1), "ms-ssim": (2 / 3, 1 + 2 / 3 + 1 / 3 + 1 / 3)}


@pytest.mark.parametrize("name", IMAGES)
def test_memory_of_a_step(name: str) -> None:
    noisy, clean = batch(0, count=8, side=512)
    image = noisy.numel() * noisy.element_size()
    with torch.no_grad():
        value = peak(lambda: LOSSES[name](noisy, clean))
    a_step = peak(lambda: value_and_gradient(LOSSES[name], noisy, clean))
    for found, images in zip((value, a_step), IMAGES[name], strict=True):
        assert found <= (images + 0.05) * image
    assert a_step >= image
