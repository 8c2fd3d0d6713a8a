"""The files of a trained student: its weights' `config.json`, and the lines that load it."""
