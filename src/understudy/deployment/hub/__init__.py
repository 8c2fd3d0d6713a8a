"""The card of an exported student, and pushing both to the hub of Hugging Face."""
