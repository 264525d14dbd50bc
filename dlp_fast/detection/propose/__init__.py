"""Proposals: each finds groups of images that may be poison, by one kind of sign, and none decides."""
