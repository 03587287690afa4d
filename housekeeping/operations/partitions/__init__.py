"""Whole partitions that go instead of their rows."""
