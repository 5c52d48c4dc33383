"""One adapter per library, which calls it for the mean SSIM or MS-SSIM of a case in the fastest way.

Each adapter states what its library computes differently. All run with their own default settings and torch's. Windows
that can be built in advance are built in `function`, outside the timed step.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from dataclasses import replace
from importlib import metadata
from types import ModuleType

import torch
from torch import Tensor
from torch.nn.functional import l1_loss

from .cases import L1_SSIM, MASKED, MS_SSIM, SSIM, UNIFORM, Case, SSIMFunction, make_mask

OURS = "ssim_fused"
REFERENCE = "torchmetrics"


class Peer:
    """A library to measure. Creating an instance imports the library."""

    name: str  # as on the package index
    module: str
    ops: tuple[str, ...] = (SSIM, MS_SSIM)
    spatial_dims: tuple[int, ...] = (2, 3)  # images, volumes
    devices: tuple[str, ...] = ("cpu", "cuda")

    def __init__(self) -> None:
        self.library = importlib.import_module(self.module)
        self.version = getattr(self.library, "__version__", None) or metadata.version(self.name)

    def supports(self, case: Case) -> bool:
        """Whether the library supports this operator with these parameters."""
        op = SSIM if case.op == L1_SSIM else case.op
        return op in self.ops and case.spatial_dims in self.spatial_dims

    def function(self, case: Case, device: str) -> SSIMFunction:
        """The differentiable mean `(preds, target) -> scalar` for an SSIM or MS-SSIM case of floats."""
        raise NotImplementedError

    def case_function(self, case: Case, device: str) -> SSIMFunction:
        """The same for any case: adds PyTorch's L1 to the library's SSIM, and converts bytes first."""
        if case.op == L1_SSIM:
            ssim = self.function(replace(case, op=SSIM), device)
            return lambda preds, target: 0.2 * ssim(preds, target) + (0.8 - 0.8 * l1_loss(preds, target))
        function = self.function(case, device)
        if case.dtype == torch.uint8:
            return lambda preds, target: function(preds.float().div_(255), target.float().div_(255))
        return function


class TorchMetrics(Peer):
    """The reference: reflected borders, one dense convolution of five stacked images."""

    name, module = REFERENCE, "torchmetrics.functional.image"

    def function(self, case: Case, device: str) -> SSIMFunction:
        ssim = {
            SSIM: self.library.structural_similarity_index_measure,
            MS_SSIM: self.library.multiscale_structural_similarity_index_measure,
        }[case.op]
        return lambda preds, target: ssim(preds, target, sigma=case.sigma, data_range=1.0)


class SSIMFused(TorchMetrics):
    """The library that is compared with the others. It has the reference's functions."""

    name, module = OURS, "ssim_fused"

    def supports(self, case: Case) -> bool:
        return super().supports(case) or case.op in (MASKED, UNIFORM)

    def case_function(self, case: Case, device: str) -> SSIMFunction:
        if case.op == MASKED:
            mask = make_mask(case, device)
            return lambda preds, target: self.library.ssim(preds, target, data_range=1.0, mask=mask)
        if case.op == UNIFORM:
            return lambda preds, target: self.library.ssim(preds, target, gaussian_kernel=False, kernel_size=7)
        if case.op == L1_SSIM:
            loss = self.library.L1SSIMLoss(sigma=case.sigma)
            return lambda preds, target: 1 - loss(preds, target)
        if case.dtype == torch.uint8:
            return lambda preds, target: self.library.ssim(preds, target, sigma=case.sigma)
        return self.function(case, device)


class SSIMFusedApart(TorchMetrics):
    """ssim_fused without its fused extras: L1 is a separate loss, and bytes are converted first."""

    name, module = f"{OURS}_apart", "ssim_fused"

    def supports(self, case: Case) -> bool:
        return super().supports(case) and (case.op == L1_SSIM or case.dtype == torch.uint8)


class PytorchMSSSIM(Peer):
    """Without padding: the map is smaller by the window."""

    name, module = "pytorch-msssim", "pytorch_msssim"

    def function(self, case: Case, device: str) -> SSIMFunction:
        module = {SSIM: self.library.SSIM, MS_SSIM: self.library.MS_SSIM}[case.op]
        ssim = module(
            data_range=1.0,
            win_size=case.taps,
            win_sigma=case.sigma,
            channel=case.shape[1],
            spatial_dims=case.spatial_dims,
        )
        # It is not a buffer, so Module.to does not move it, and every call would copy it to the device.
        ssim.win = ssim.win.to(device, case.dtype if case.dtype.is_floating_point else None)
        return ssim


class Kornia(Peer):
    """Reflected borders as in the reference. sigma is always 1.5. It returns the map, which is averaged here."""

    name, module = "kornia", "kornia.metrics"
    ops = (SSIM,)

    def supports(self, case: Case) -> bool:
        return super().supports(case) and case.sigma == 1.5

    def function(self, case: Case, device: str) -> SSIMFunction:
        ssim = {2: self.library.ssim, 3: self.library.ssim3d}[case.spatial_dims]
        return lambda preds, target: ssim(preds, target, case.taps, max_val=1.0).mean()


class PIQ(Peer):
    """Without padding. Every call checks that the inputs lie in [0, 1], which counts as part of its time."""

    name, module = "piq", "piq.ssim"
    spatial_dims = (2,)  # its fifth dimension is for complex numbers

    def __init__(self) -> None:
        # The package's __init__ imports feature extractors, and with them a torchvision that must match torch. Its ssim
        # needs neither, so only that module is loaded.
        spec = importlib.util.find_spec("piq")
        if spec is None or spec.submodule_search_locations is None:
            raise ModuleNotFoundError("No module named 'piq'", name="piq")
        package = sys.modules.setdefault("piq", ModuleType("piq"))
        package.__path__ = spec.submodule_search_locations
        super().__init__()

    def function(self, case: Case, device: str) -> SSIMFunction:
        if case.op == MS_SSIM:
            ms_ssim = importlib.import_module("piq.ms_ssim").multi_scale_ssim
            return lambda preds, target: ms_ssim(preds, target, kernel_size=case.taps, kernel_sigma=case.sigma)
        ssim = self.library.ssim
        # The default, downsample=True, scores 1080 rows at a quarter of their size.
        return lambda preds, target: ssim(
            preds, target, kernel_size=case.taps, kernel_sigma=case.sigma, downsample=False
        )


class FrameAnalytics(Peer):
    """Without padding. The result is float64.

    `ssim` is the entry point of values and gradients. It uses the C++ or CUDA kernel if that supports the case (values
    up to 11 taps, on CUDA gradients too), and otherwise PyTorch code with torch.compile.
    """

    name, module = "frame-analytics", "frame_analytics"
    spatial_dims = (2,)

    def function(self, case: Case, device: str) -> SSIMFunction:
        # A second shape in one process makes torch.compile generate slower code for any shape. A reset gives every case
        # its own code, as in training.
        torch._dynamo.reset()
        self.library.set_compile_enabled(True)  # also empties the library's own cache
        ssim = {SSIM: self.library.ssim, MS_SSIM: self.library.ms_ssim}[case.op]
        return lambda preds, target: ssim(preds, target, data_range=1.0, win_size=case.taps, sigma=case.sigma)


class FusedSSIM(Peer):
    """Zero padding. 11 taps, sigma 1.5 and range 1 are fixed, and only `preds` has a gradient."""

    name, module = "fused-ssim", "fused_ssim"
    ops = (SSIM,)
    devices = ("cuda",)

    def supports(self, case: Case) -> bool:
        if case.spatial_dims == 3 and not hasattr(self.library, "fused_ssim3d"):  # an older version
            return False
        return super().supports(case) and case.sigma == 1.5 and case.dtype == torch.float32

    def function(self, case: Case, device: str) -> SSIMFunction:
        ssim = self.library.fused_ssim if case.spatial_dims == 2 else self.library.fused_ssim3d
        # train=False skips the three maps that only its backward reads.
        return lambda preds, target: ssim(preds, target, train=preds.requires_grad)


class ScikitImage(Peer):
    """Arrays of one image at a time, under the default window of 7x7; sample covariance; a float64 mean."""

    name, module = "scikit-image", "skimage.metrics"
    ops = (UNIFORM,)
    spatial_dims = (2,)
    devices = ("cpu",)

    def case_function(self, case: Case, device: str) -> SSIMFunction:
        channel_axis = 2 if case.shape[1] > 1 else None

        def function(preds: Tensor, target: Tensor) -> Tensor:
            x, y = (image[0].permute(1, 2, 0).squeeze(2).numpy() for image in (preds, target))
            return torch.tensor(self.library.structural_similarity(x, y, channel_axis=channel_axis))

        return function


class SSIMFusedSkimage(ScikitImage):
    """Our function of the same name, arguments and results."""

    name, module = f"{OURS}.compat.skimage", "ssim_fused.compat.skimage"

    def __init__(self) -> None:
        self.library = importlib.import_module(self.module)
        self.version = importlib.import_module(OURS).__version__


class FastSSIM(ScikitImage):
    """The same arrays, window and covariance."""

    name, module = "fast-ssim", "fast_ssim"

    def case_function(self, case: Case, device: str) -> SSIMFunction:
        def function(preds: Tensor, target: Tensor) -> Tensor:
            x, y = (image[0].permute(1, 2, 0).squeeze(2).numpy() for image in (preds, target))
            return torch.tensor(self.library.ssim(x, y, data_range=255))

        return function


PEERS: list[type[Peer]] = [
    SSIMFused,
    SSIMFusedApart,
    TorchMetrics,
    PytorchMSSSIM,
    Kornia,
    PIQ,
    FrameAnalytics,
    FusedSSIM,
    SSIMFusedSkimage,
    ScikitImage,
    FastSSIM,
]


def create(name: str) -> Peer:
    """The adapter of the library with this name."""
    return next(peer for peer in PEERS if peer.name == name)()


def load(device: str, names: list[str]) -> tuple[list[Peer], list[str], list[tuple[str, str]]]:
    """Import the named libraries, or all, if they support the device.

    Returns the adapters, a line for each library that is not installed, and the name and traceback of each library that
    is installed but cannot be imported. An unknown name raises ValueError.
    """
    known = [peer.name for peer in PEERS]
    for name in names:
        if name not in known:
            raise ValueError(f"unknown library {name!r}; the libraries are {', '.join(known)}")
    peers, missing, errors = [], [], []
    for peer in PEERS:
        if device not in peer.devices or (names and peer.name not in names):
            continue
        try:
            peers.append(peer())
        except Exception as error:
            top = peer.module.partition(".")[0]
            if isinstance(error, ModuleNotFoundError) and error.name == top:
                missing.append(f"{peer.name} is not installed; going on without it")
            else:
                errors.append((peer.name, f"import\n{traceback.format_exc()}"))
    return peers, missing, errors
