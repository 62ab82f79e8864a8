"""Estimates an artifact's latency on a phone's CPU from what it executes. Nothing is measured."""
