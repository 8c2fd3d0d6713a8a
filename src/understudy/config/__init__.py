"""Recipes: their schema, their files, and the tables shipped. Imports no torch."""
