"""Dated archive tables past their age: exported, dropped, put back."""
