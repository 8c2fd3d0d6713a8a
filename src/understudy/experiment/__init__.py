"""Running recipes: training, evaluation, comparison, and the directories they write."""
