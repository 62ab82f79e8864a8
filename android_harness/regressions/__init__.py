"""Whether a session is slower or worse than the nights before, since when, and what else changed then. Pure.

`judging` holds one session against its baseline (at once, with a re-run to confirm), `quality` its outputs
and size against those before, `changes` finds where a whole series changed (some nights later, but smaller
steps too), and `causes` names what changed at that place. Sessions come from `android_harness.history`.
"""
