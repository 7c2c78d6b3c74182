"""Peak matrix-multiplication speed of GPUs, as their makers state it."""

import re
import warnings

import torch
from lightning.fabric.utilities.throughput import get_available_flops

OTHERWISE = {
    "B200": 2250,
    "GH200": 989,
    "H200 NVL": 835,
    "H200": 989,
    "H100 NVL": 835,
    "L40S": 362,
    "L40": 181,
    "A40": 150,
    "RTX A6000": 155,
    "RTX 4090": 165,
    "RTX 3090": 71,
}
"""The GPUs that Lightning (2.6) does not know by the name that the driver gives, or knows wrongly: 10^12 dense 16-bit
operations per second by NVIDIA's data sheets. Lightning has the H100 NVL at more than twice its rate, takes an L40 for
an L4, and has the last four without tensor cores. A test finds those that a release of Lightning has put right."""


def peak_flops(device: torch.device, dtype: torch.dtype | None) -> float | None:
    """Return a GPU's dense matrix operations per second in a 16-bit dtype; None if they are not known.

    Args:
        device: The device.
        dtype: In which the matrices are multiplied.
    """
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return None
    name = torch.cuda.get_device_name(device)
    known = next((peak * 1e12 for word, peak in OTHERWISE.items() if re.search(rf"\b{word}\b", name)), None)
    return known or _by_lightning(device, dtype)


def _by_lightning(device: torch.device, dtype: torch.dtype) -> float | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of each GPU and dtype that it does not know
        try:
            peak, single = (get_available_flops(device, kind) for kind in (dtype, torch.float32))
        except (LookupError, ValueError):  # it takes the names of GPUs apart
            return None
    # what is no faster than float32 does without tensor cores, and a share of it could be more than 1
    return float(peak) if peak and single and peak > single else None
