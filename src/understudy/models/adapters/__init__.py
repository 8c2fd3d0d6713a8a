"""Adapters that build networks of other libraries and of the user's own files, one file each."""
