"""Speed and memory of ssim_fused beside other SSIM libraries; see bench.py and plot.py."""
