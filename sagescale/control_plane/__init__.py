"""The guide's Python API: a manager over registered instances, and the live loop behind it."""
