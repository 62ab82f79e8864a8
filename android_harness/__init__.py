"""Measures exported artifacts on real devices over adb, and says what the figures are worth.

Knows nothing of `exporter` or of any framework: it runs files in the runner (`runner/`) and judges times.
"""
