"""Runs artifacts on the phone's own CPU kernels, emulated by QEMU. What it takes says nothing about time."""
