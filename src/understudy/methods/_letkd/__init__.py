"""What letKD measures of its teacher before training."""
