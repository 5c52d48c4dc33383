"""Tests ``ssim-fused compare`` on pictures and folders: pairs, formats, exit statuses and the effects of options."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scoring_files import run, save, write_folders
from skimage import data

import ssim_fused
from ssim_fused.scoring import Failed, Pair, Scored, Settings, UsageError, compare, find_pairs, score
from ssim_fused.scoring.pool import pool


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_folders(tmp_path_factory.mktemp("pictures"))


def expected(reference, distorted, function=ssim_fused.structural_similarity_index_measure, **arguments):
    """Returns the score of two files by the public function, read here with Pillow."""
    x, y = (torch.from_numpy(np.array(Image.open(p))).movedim(-1, 0)[None].double() for p in (reference, distorted))
    return function(y, x, data_range=255.0, **arguments).item()


def scores(*arguments):
    code, out, err = run("compare", *arguments, "--format", "json")
    assert code == 0, err
    return json.loads(out)


def test_json_of_two_folders_matches_the_documentation(folders):
    a, b = folders
    result = scores(a, b, "--metric", "ssim,ms-ssim,psnr")
    assert set(result) == {"pairs", "pooled", "inputs", "failed", "settings"}
    assert result["failed"] == []
    names = [f"{folder}/{name}" for folder, name in (("sub0", "astronaut"), ("sub0", "coffee"), ("sub1", "cat"))]
    assert [pair["reference"] for pair in result["pairs"]] == [f"{a}/{name}.png" for name in names]
    assert [pair["distorted"] for pair in result["pairs"]] == [f"{b}/{name}.jpg" for name in names]
    for pair in result["pairs"]:
        assert list(pair) == ["reference", "distorted", "ssim", "ms-ssim", "psnr"]
        files = pair["reference"], pair["distorted"]
        # Scores are computed in float32 and printed with seven digits.
        assert pair["ssim"] == pytest.approx(expected(*files), abs=5e-7)
        multiscale = ssim_fused.multiscale_structural_similarity_index_measure
        assert pair["ms-ssim"] == pytest.approx(expected(*files, function=multiscale), abs=5e-7)
        x, y = (np.array(Image.open(path)).astype(float) for path in files)
        assert pair["psnr"] == pytest.approx(10 * math.log10(255**2 / np.mean((x - y) ** 2)), rel=1e-6)
    mean = sum(pair["ssim"] for pair in result["pairs"]) / 3
    assert result["pooled"]["ssim"] == {"mean": pytest.approx(mean, abs=2e-7)}


def test_per_frame_treats_a_picture_as_one_frame(folders):
    pair = scores(*folders, "--per-frame")["pairs"][0]
    assert pair["frames"] == [{"frame": 0, "ssim": pair["ssim"]}]


def test_compare_returns_what_the_command_prints(folders):
    a, b = map(str, folders)
    arguments = {"metric": ("psnr", "ssim"), "pool": ("mean", "p5"), "db": True, "dssim": True, "per_frame": True}
    printed = scores(a, b, "--metric", "psnr,ssim", "--pool", "mean,p5", "--db", "--dssim", "--per-frame")
    assert compare(a, b, **arguments) == printed


def test_db_and_dssim_add_columns(folders):
    pair = scores(*folders, "--metric", "ssim,ms-ssim", "--db", "--dssim")["pairs"][0]
    assert list(pair)[2:] == ["ssim", "ssim-db", "dssim", "ms-ssim", "ms-ssim-db", "ms-dssim"]
    assert pair["ssim-db"] == pytest.approx(-10 * math.log10(1 - pair["ssim"]), rel=1e-5)
    assert pair["ms-dssim"] == pytest.approx((1 - pair["ms-ssim"]) / 2, rel=1e-4)


def test_json_lines_and_csv_have_one_row_per_pair(folders):
    pairs = scores(*folders)["pairs"]
    _, out, _ = run("compare", *folders, "--format", "jsonl")
    lines = [json.loads(line) for line in out.splitlines()]
    assert all(line.pop("settings")["version"] == ssim_fused.__version__ for line in lines)
    assert lines == pairs
    _, out, _ = run("compare", *folders, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row | {"ssim": float(row["ssim"])} for row in rows] == [pair | {"error": ""} for pair in pairs]
    _, out, _ = run("compare", *folders, "--format", "csv", "--per-frame")
    assert [row["frame"] for row in csv.DictReader(io.StringIO(out))] == ["0", "0", "0"]


def test_table_is_aligned_and_ends_with_the_summary(folders):
    _, out, _ = run("compare", *folders, "--metric", "ssim,psnr", "--pool", "mean,min")
    lines = out.splitlines()
    assert lines[0].split() == ["reference", "distorted", "ssim", "psnr"]
    assert {len(line) for line in lines[:-1]} == {len(lines[0])}
    assert [line.split()[0] for line in lines[-3:-1]] == ["mean", "min"]
    assert lines[-1] == "3 pairs scored"


def test_ffmpeg_format_has_each_channel_and_db(folders):
    _, out, _ = run("compare", *folders, "--format", "ffmpeg")
    pairs = scores(*folders)["pairs"]
    for number, (line, pair) in enumerate(zip(out.splitlines(), pairs, strict=True), start=1):
        count, *channels, everything, db = line.split()
        assert count == f"n:{number}"
        assert [channel[:2] for channel in channels] == ["R:", "G:", "B:"]
        values = [float(channel[2:]) for channel in channels]
        assert sum(values) / 3 == pytest.approx(pair["ssim"], abs=1e-6)
        assert everything == f"All:{pair['ssim']:.6f}"
        assert float(db.strip("()")) == pytest.approx(-10 * math.log10(1 - pair["ssim"]), abs=1e-4)
    _, out, _ = run("compare", *folders, "--format", "ffmpeg", "--luma", "bt601")
    assert out.startswith("n:1 Y:0.")


def test_identical_pictures_have_ssim_1_and_infinite_psnr(folders):
    picture = folders[0] / "sub1/cat.png"
    result = scores(picture, picture, "--metric", "ssim,psnr", "--db")
    assert result["pairs"][0] == {
        "reference": str(picture), "distorted": str(picture), "ssim": 1.0, "ssim-db": None, "psnr": None,
    }  # fmt: skip
    assert result["pooled"] == {"ssim": {"mean": 1.0}, "ssim-db": {"mean": None}, "psnr": {"mean": None}}
    assert run("compare", picture, picture, "--metric", "psnr", "--format", "csv")[1].splitlines()[1].endswith(",inf,")


def test_output_file_appears_only_when_complete(folders, tmp_path):
    target = tmp_path / "scores.json"
    code, out, _ = run("compare", *folders, "--format", "json", "--output", target)
    assert (code, out) == (0, "")
    assert json.loads(target.read_text()) == scores(*folders)
    before = target.read_bytes()
    code, _, err = run("compare", *folders, "--format", "json", "--output", target, "--device", "cuda:99")
    assert code == 2
    assert "cuda:99" in err
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]
    code, _, err = run("compare", *folders, "--output", tmp_path / "missing/scores.json")
    assert code == 2
    assert "cannot be written" in err


def test_fail_under_exits_with_status_1(folders):
    assert run("compare", *folders, "--fail-under", 0.5)[0] == 0
    assert run("compare", *folders, "--fail-under", 0.999)[0] == 1
    assert run("compare", *folders, "--metric", "psnr", "--fail-under", 20)[0] == 0


def test_failed_pairs_are_named_and_the_others_scored(tmp_path):
    a, b = write_folders(tmp_path)
    save(a / "small.png", data.astronaut()[:100, :100])
    save(b / "small.png", data.astronaut()[:100, :120])
    save(a / "only.png", data.astronaut()[:100, :100])
    (a / "broken.png").write_bytes((a / "small.png").read_bytes()[:2000])
    save(b / "broken.png", data.astronaut()[:100, :100])
    (a / "text.png").write_text("no picture")
    save(b / "text.png", data.astronaut()[:100, :100])
    save(a / "twice.png", data.astronaut()[:100, :100])
    save(a / "twice.jpg", data.astronaut()[:100, :100])
    save(b / "twice.png", data.astronaut()[:100, :100])
    code, out, err = run("compare", a, b, "--format", "json")
    assert code == 2
    result = json.loads(out)
    assert len(result["pairs"]) == 3
    failed = {failure["reference"].rsplit("/", 1)[1]: failure["error"] for failure in result["failed"]}
    assert set(failed) == {"small.png", "only.png", "broken.png", "text.png", "twice.jpg"}
    assert "sizes differ: 100x100 and 120x100; expected the same size, or use --resize" in failed["small.png"]
    assert failed["only.png"] == f"{b} has no file with this name"
    assert "truncated" in failed["broken.png"]
    assert "not a picture in a supported format" in failed["text.png"]
    assert "ambiguous" in failed["twice.jpg"]
    assert "5 of 8 pairs could not be scored" in err
    assert all(error in err for error in failed.values())
    code, out, _ = run("compare", a, b)
    assert code == 2
    assert out.splitlines()[-1] == "3 pairs scored, 5 not scored"
    _, out, _ = run("compare", a, b, "--format", "csv")
    errors = [row["error"] for row in csv.DictReader(io.StringIO(out))]
    assert sum(bool(error) for error in errors) == 5
    # Status 2 (a pair failed) takes precedence over status 1 (a score is too low).
    assert run("compare", a, b, "--fail-under", 0.999)[0] == 2


def test_pictures_smaller_than_the_window_fail(tmp_path):
    small = save(tmp_path / "small.png", data.astronaut()[:60, :60])
    code, out, _ = run("compare", small, small, "--metric", "ms-ssim", "--format", "json")
    assert code == 2
    assert json.loads(out)["pairs"] == []
    assert json.loads(out)["failed"][0]["error"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a"], "DISTORTED is missing"),
        (["missing.png", "a"], "'missing.png' does not exist"),
        (["-", "-"], "'-' is given twice"),
        (["a", "a/sub1/cat.png"], "is a folder, but"),
        (["a", "b", "--pairs", "list.csv"], "give only one of the two"),
        (["--pairs", "missing.csv"], "missing.csv"),
        (["a", "b", "--metric", "ssim,vmaf"], "metric is 'vmaf'"),
        (["a", "b", "--metric", "ssim,ssim"], "each at most once"),
        (["a", "b", "--pool", "p101"], "pool is 'p101'"),
        (["a", "b", "--window", "uniform", "--sigma", "2"], "sigma is 2.0, but the window is uniform"),
        (["a", "b", "--kernel-size", "7"], "kernel_size is 7, but the window is Gaussian"),
        (["a", "b", "--window", "uniform", "--kernel-size", "8"], "expected an odd number"),
        (["a", "b", "--sigma", "-1"], "expected a number above 0"),
        (["a", "b", "--convention", "skimage", "--metric", "ms-ssim"], "has no ms-ssim"),
        (["a", "b", "--crop", "-1"], "crop is -1"),
        (["a", "b", "--batch", "0"], "batch is 0"),
        (["a", "b", "--workers", "0"], "workers is 0"),
        (["a", "b", "--frames", "5:3"], "expected A:B:STEP with 0 <= A < B"),
        (["a", "b", "--frames", "5"], "expected A:B"),
        (["a", "b", "--device", "tpu"], "expected auto, cpu, cuda"),
        (["a", "b", "--format", "ffmpeg", "--metric", "psnr"], "--metric is psnr, but --format ffmpeg prints ssim"),
        (["a", "b", "--luma", "bt2020"], "invalid choice"),
    ],
)
def test_usage_errors_exit_with_status_2_and_name_the_cause(folders, monkeypatch, arguments, message):
    monkeypatch.chdir(folders[0].parent)
    code, out, err = run("compare", *arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert out == "" or out.startswith("reference")  # at most the header of the table


def test_pairs_are_read_from_a_csv_list(folders, tmp_path):
    a, b = folders
    lines = [f"{a}/sub1/cat.png,{b}/sub1/cat.jpg", f'"{a}/sub0/astronaut.png", {b}/sub0/astronaut.jpg', ""]
    listing = tmp_path / "list.csv"
    for head in ([], ["reference,distorted"]):
        listing.write_text("\n".join([*head, *lines]))
        names = [pair["distorted"].rsplit("/")[-1] for pair in scores("--pairs", listing)["pairs"]]
        assert names == ["cat.jpg", "astronaut.jpg"]
    listing.write_text("one.png")
    code, _, err = run("compare", "--pairs", listing)
    assert (code, "line 1: number of columns is 1" in err) == (2, True)
    listing.write_text(f"{a}/sub1/cat.png,gone.jpg")
    code, out, _ = run("compare", "--pairs", listing, "--format", "json")
    assert code == 2
    assert json.loads(out)["failed"][0]["error"] == "gone.jpg: No such file or directory"


def test_one_reference_with_several_distorted_inputs(folders, tmp_path):
    reference = folders[0] / "sub1/cat.png"
    others = [save(tmp_path / f"{q}.jpg", np.array(Image.open(reference)), quality=q) for q in (10, 50, 90)]
    ours = [pair["ssim"] for pair in scores(reference, *others)["pairs"]]
    assert ours == sorted(ours)
    assert len(ours) == 3


@pytest.mark.parametrize("padding", ["reflect", "zero", "valid"])
@pytest.mark.parametrize("window", [{"sigma": 2.0}, {"window": "uniform", "kernel_size": 7}])
def test_padding_and_window_reach_the_kernel(folders, padding, window):
    files = [folders[0] / "sub1/cat.png", folders[1] / "sub1/cat.jpg"]
    options = [part for name, value in window.items() for part in (f"--{name.replace('_', '-')}", value)]
    arguments = {"gaussian_kernel": "window" not in window} | {k: v for k, v in window.items() if k != "window"}
    ours = scores(*files, "--padding", padding, *options)["pairs"][0]["ssim"]
    assert ours == pytest.approx(expected(*files, padding=padding, **arguments), abs=5e-7)


def test_crop_is_applied_before_scoring(folders, tmp_path):
    files = [folders[0] / "sub1/cat.png", folders[1] / "sub1/cat.jpg"]
    arrays = [np.array(Image.open(path)) for path in files]
    inner = [save(tmp_path / f"{i}.png", array[7:-7, 7:-7]) for i, array in enumerate(arrays)]
    assert scores(*files, "--crop", 7)["pairs"][0]["ssim"] == scores(*inner)["pairs"][0]["ssim"]
    code, out, _ = run("compare", *files, "--crop", 100, "--format", "json")
    assert code == 2
    assert json.loads(out)["failed"][0]["error"].startswith("--crop 100 leaves nothing of 200x200 pixels; ")


def test_resize_scales_to_the_size_of_the_reference(folders, tmp_path):
    reference = folders[0] / "sub1/cat.png"
    image = Image.open(reference)
    image.resize((300, 300), Image.Resampling.BICUBIC).save(tmp_path / "large.png")
    close = scores(reference, tmp_path / "large.png", "--resize")["pairs"][0]["ssim"]
    assert 0.97 < close < 1
    image.resize((50, 50), Image.Resampling.BICUBIC).save(tmp_path / "small.png")
    assert scores(reference, tmp_path / "small.png", "--resize")["pairs"][0]["ssim"] < close


def test_luma_formulas(folders):
    files = [folders[0] / "sub1/cat.png", folders[1] / "sub1/cat.jpg"]
    pictures = [np.array(Image.open(path)).astype(float) for path in files]
    formulas = {
        "bt601": lambda p: p @ [0.299, 0.587, 0.114],
        "bt709": lambda p: p @ [0.2126, 0.7152, 0.0722],
        "matlab": lambda p: 16 + p @ [65.481, 128.553, 24.966] / 255,
    }
    for name, formula in formulas.items():
        x, y = (torch.from_numpy(formula(p))[None, None] for p in pictures)
        theirs = ssim_fused.structural_similarity_index_measure(y, x, data_range=255.0).item()
        assert scores(*files, "--luma", name)["pairs"][0]["ssim"] == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("options", [{"batch": 1, "workers": 1}, {"batch": 3, "workers": 2}, {"batch": 64}])
def test_batch_and_workers_do_not_change_scores(folders, options):
    a, b = map(str, folders)
    every = {"metric": ("ssim", "ms-ssim", "psnr"), "padding": "valid"}
    assert compare(a, b, **every, **options) == compare(a, b, **every)


def test_score_yields_batches_of_equal_size_in_order(tmp_path):
    sizes = [(64, 64)] * 5 + [(64, 80)] * 2 + [(64, 64)]
    pairs = []
    for number, (height, width) in enumerate(sizes):
        path = save(tmp_path / f"{number}.png", data.astronaut()[:height, :width])
        pairs.append(Pair(str(path), str(path)))
    pairs.insert(1, Pair("gone.png", "gone.png"))
    batches = list(score(iter(pairs), Settings(batch=4)))
    assert [outcome.pair for batch in batches for outcome in batch] == list(range(9))
    assert max(len(batch) for batch in batches) == 4
    flat = [outcome for batch in batches for outcome in batch]
    assert isinstance(flat[1], Failed)
    assert all(isinstance(outcome, Scored) and outcome.scores == {"ssim": 1.0} for outcome in flat[:1] + flat[2:])


def test_the_number_of_torch_threads_is_restored(folders):
    threads = torch.get_num_threads()
    batches = score(find_pairs(*map(str, folders[:1]), [str(folders[1])]))
    next(batches)
    batches.close()
    assert torch.get_num_threads() == threads


def test_pools():
    values = [0.5, 0.9, 1.0, 0.7]
    assert pool("mean", values) == pytest.approx(0.775)
    assert (pool("min", values), pool("max", values)) == (0.5, 1.0)
    for name, percent in (("p1", 1), ("p5", 5), ("median", 50), ("p100", 100)):
        assert pool(name, values) == pytest.approx(np.percentile(values, percent))
    assert pool("harmonic", values) == pytest.approx(4 / sum(1 / (1 + v) for v in values) - 1)
    assert pool("p50", [math.inf, math.inf, 30.0]) == math.inf
    assert pool("p1", [math.inf, 30.0]) == math.inf  # interpolated between 30 and infinity


def test_compare_refuses_invalid_arguments(folders):
    with pytest.raises(UsageError, match=r"reference is .a. and distorted is \(\); expected both"):
        compare("a")
    with pytest.raises(UsageError, match="metric is 'mse'"):
        compare(*map(str, folders), metric=("mse",))
