"""Measure exported artifacts on real devices over adb, and decide what the figures prove.

This package knows neither `exporter` nor any framework: it runs files in the runner (`runner/`) and judges
times.
"""
