"""Runs artifacts on the phone's own CPU kernels, emulated by QEMU. Durations say nothing about a phone's."""
