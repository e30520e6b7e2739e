"""Which configurations a sweep tries, and which of them is better beyond chance."""
