"""Answers from files alone whether artifacts load in an Android app: what they need, what a library has."""
