"""Networks of other libraries and of the user's own files, one adapter each."""
