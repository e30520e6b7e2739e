"""What a prediction was made of: the posterior's gain, and what the network's heads respond to."""
