"""Importing this makes torch and torchvision ready in a worker's server process.

One thread: a server that has used OpenMP's threads would leave its forked children hanging.
"""

from __future__ import annotations

import torch

from exporter.capture import torchvision_ops

torch.set_num_threads(1)
torchvision_ops.prepare_torchvision_ops()

import torchvision  # noqa: E402, F401 - only after its operators are declared
