"""Speed and memory of ssim_fused compared with other SSIM libraries; see bench.py and plot.py."""
