"""The case measured, not guessed: how near the images are to what a network knows, how many they are, what would pay."""
