"""Export, measure, store, judge and report models x targets x devices, every night.

`run` is the table of contents. Measurements are stored in the history and nowhere else: a night that was
killed continues from there.
"""
