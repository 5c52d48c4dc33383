"""Score JPEG files of several qualities and a short video, and draw score against quality.

For users who want to see what ``ssim-fused`` and ``ssim_fused.scoring`` return. The script writes the photographs that
scikit-image ships into a folder and JPEG files of several qualities into others, and scores each folder as the command
does. It also scores a video of a moving camera, compressed with H.264. Then it draws a figure, and writes a report to
open in a browser.

    python examples/score_pictures.py
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import av
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from skimage import data
from tqdm import tqdm

from ssim_fused.scoring import cli, compare

PHOTOGRAPHS = {"astronaut": data.astronaut, "cat": data.chelsea, "coffee": data.coffee, "rocket": data.rocket}
QUALITIES = (5, 10, 20, 35, 50, 65, 80, 90, 95)
RATES = (16, 40)  # of H.264: its crf; a larger one is worse
FRAMES = 75


def write_pictures(folder: Path) -> None:
    """Write the photographs as PNG files, and a folder of JPEG files for each quality."""
    for name, photograph in PHOTOGRAPHS.items():
        image = Image.fromarray(photograph())
        (folder / "original").mkdir(parents=True, exist_ok=True)
        image.save(folder / f"original/{name}.png")
        for quality in QUALITIES:
            (folder / f"jpeg{quality:02d}").mkdir(exist_ok=True)
            image.save(folder / f"jpeg{quality:02d}/{name}.jpg", quality=quality)


def write_video(path: Path, rate: int) -> None:
    """Write a video of a camera that moves over a photograph and comes to rest."""
    photograph = data.astronaut()
    av.logging.set_level(av.logging.ERROR)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.options = {"crf": str(rate)}
        for place in np.linspace(0, 1, FRAMES):
            x, y = (round(float(side) * (2 - place) * place) for side in (512 - 320, 512 - 240))
            frame = np.ascontiguousarray(photograph[y : y + 240, x : x + 320])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def score_qualities(folder: Path) -> dict[str, list[float]]:
    """Return, for each metric, the mean score of each quality."""
    curves: dict[str, list[float]] = {"ssim": [], "ms-ssim": [], "psnr": []}
    for quality in tqdm(QUALITIES, desc="JPEG qualities"):
        scores = compare(str(folder / "original"), str(folder / f"jpeg{quality:02d}"), metric=tuple(curves))
        for metric, curve in curves.items():
            curve.append(scores["pooled"][metric]["mean"])
    return curves


def draw(curves: dict[str, list[float]], frames: list[dict[str, float]], path: Path) -> None:
    """Draw score against quality, and the video's score over its frames."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    scores, decibels, video = figure.subplots(1, 3)
    for metric in ("ssim", "ms-ssim"):
        scores.plot(QUALITIES, curves[metric], marker="o", markersize=4, label=metric)
    scores.set(xlabel="JPEG quality", ylabel="mean score", title=f"{len(PHOTOGRAPHS)} photographs")
    scores.legend()
    decibels.plot(QUALITIES, curves["psnr"], marker="o", markersize=4, color="C2")
    decibels.set(xlabel="JPEG quality", ylabel="PSNR, dB", title="the same")
    video.plot([frame["frame"] for frame in frames], [frame["ssim"] for frame in frames], color="C3")
    video.set(xlabel="frame", ylabel="SSIM of luma", title=f"H.264, crf {RATES[1]} against {RATES[0]}")
    for axes in (scores, decibels, video):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def main() -> int:
    """Write, score and draw; return 1 if a better quality scored worse."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output" / "scoring")
    output = parser.parse_args().output
    write_pictures(output)
    videos = [output / f"crf{rate}.mp4" for rate in RATES]
    for path, rate in zip(videos, RATES, strict=True):
        write_video(path, rate)

    curves = score_qualities(output)
    result = compare(*map(str, videos), luma="bt601", per_frame=True, pool=("mean", "p5"))
    draw(curves, result["pairs"][0]["frames"], output / "score_against_quality.png")
    print(f"{'quality':>8}" + "".join(f"{metric:>10}" for metric in curves))
    for quality, *row in zip(QUALITIES, *curves.values(), strict=True):
        print(f"{quality:>8}" + "".join(f"{score:>10.4f}" for score in row))
    print(f"\nvideo, SSIM of luma: {result['pooled']['ssim']}\n")

    # What the command line prints, with a report of the worst pairs.
    folders = [str(output / name) for name in ("original", "jpeg20")]
    report = output / "report.html"
    code = cli.main(["compare", *folders, "--metric", "ssim,ms-ssim,psnr", "--report", str(report)])
    print(f"\nwrote {output}/score_against_quality.png and {report}")
    rising = all(curve == sorted(curve) for curve in curves.values())
    return code or int(not rising)


if __name__ == "__main__":
    sys.exit(main())
