"""The case measured, not guessed: how near the images are to what a network knows, how many, and what would pay."""
