"""From a trained student to its use: opened, run on pictures, exported."""
