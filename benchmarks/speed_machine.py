"""The machine of a run of speed.py: what it is, how fast it multiplies matrices, and what a model costs in multiplications."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

# (rows, inner, columns): a large square, a feed-forward net of Grounding DINO, one of SAM ViT-B.
PRODUCTS = ((1536, 1536, 1536), (8192, 256, 2048), (4096, 768, 3072))
REPEATS = 3
PACKAGES = ("autodistill-grounded-sam", "torch", "transformers", "numpy", "pillow")


class Rate(NamedTuple):
    """Floating-point operations a second, by the wall clock and of all processor cores."""

    wall: float
    processor: float


def matrix_rate() -> Rate:
    """The best of float32 products large enough for it; a multiplication and an addition are two operations."""
    import torch

    best = Rate(0, 0)
    for rows, inner, columns in PRODUCTS:
        left, right = torch.rand(rows, inner), torch.rand(inner, columns)
        for _ in range(REPEATS):
            wall, processor = time.perf_counter(), time.process_time()
            left @ right
            wall, processor = time.perf_counter() - wall, time.process_time() - processor
            work = 2 * rows * inner * columns
            best = Rate(max(best.wall, work / wall), max(best.processor, work / processor))
    return best


def count_flops(run: Callable[[], object]) -> int:
    """Operations of matrix products, convolutions and attention in one call; gathers, norms and activations count nothing."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def attention(query: Any, key: Any, value: Any, *_: object, **__: object) -> int:
        return int(sdpa_flop_count(query, key, value))

    # The counter knows the attention kernels of GPUs alone.
    on_cpu = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
    with FlopCounterMode(display=False, custom_mapping=on_cpu) as counter:
        run()
    return int(counter.get_total_flops())


def facts(threads: int) -> dict[str, Any]:
    """CPU, cores, system and versions, for people who compare figures of two machines."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def _cpu_model() -> str:
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text(encoding="utf-8").splitlines() if listing.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
