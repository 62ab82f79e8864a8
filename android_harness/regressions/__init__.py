"""Find out whether a session is slower or worse than earlier ones, since when, and what else changed then.

`judging` compares a session with its baseline at once, and a re-run confirms the result. `quality` compares
its outputs and its size with earlier ones. `changes` finds where a whole series changed, some nights later
but also for smaller steps, and `causes` names what else changed there. All functions are pure; sessions come
from `android_harness.history`.
"""
