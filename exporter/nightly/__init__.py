"""Every night: models x targets x devices exported, measured, remembered, judged and reported.

`run` is the table of contents. What was measured lies in the history and nowhere else: a night that was
killed goes on from there.
"""
