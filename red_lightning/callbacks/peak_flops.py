"""The peak of a GPU in 16-bit matrix products, by its data sheet."""

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
"""10^12 dense 16-bit operations a second, by NVIDIA's data sheets, where Lightning's ``get_available_flops`` is wrong.

Lightning 2.6 does not know the driver's names of the first four. It has the H100 NVL at more than twice its peak, takes
an L40S or L40 for an L4, and has the last four without tensor cores. A test fails for each line that a release of
Lightning makes unnecessary.
"""


def peak_flops(device: torch.device, dtype: torch.dtype | None) -> float | None:
    """Return the dense matrix operations per second of a GPU in a 16-bit dtype.

    Returns:
        The peak; None for another device or dtype, and for a GPU that is not known.
    """
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return None
    name = torch.cuda.get_device_name(device)
    known = next((peak * 1e12 for word, peak in OTHERWISE.items() if re.search(rf"\b{word}\b", name)), None)
    return known or _by_lightning(device, dtype)


def _by_lightning(device: torch.device, dtype: torch.dtype) -> float | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one for each unknown GPU and dtype
        try:
            peak, single = (get_available_flops(device, kind) for kind in (dtype, torch.float32))
        except (LookupError, ValueError):  # it parses the names of GPUs, and fails for some
            return None
    # a peak no higher than that of float32 leaves out the tensor cores: the measured share of it could exceed 1
    return float(peak) if peak and single and peak > single else None
