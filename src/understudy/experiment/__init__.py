"""Running recipes: training, evaluation, and the directories they write."""
