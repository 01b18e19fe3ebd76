"""Torch side of MT-CP: the network, its losses and balancing, data, training and evaluation."""
