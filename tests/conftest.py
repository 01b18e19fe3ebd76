"""Tests run one thread a process; the processes are spread over the cores."""

import torch

torch.set_num_threads(1)
