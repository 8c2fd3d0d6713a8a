"""Training several runs at once: jobs, the processes that train them, and their progress."""
