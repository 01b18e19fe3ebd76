"""Tests run one thread a process; the processes are spread over the cores."""

import signal

import torch

torch.set_num_threads(1)

# A shell that runs the tests in the background has them ignore SIGINT, and the commands they start with them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
