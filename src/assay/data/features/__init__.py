"""Hand-made features of pictures, sounds and sequences: pure functions from arrays to float32 arrays, in numpy and scipy."""
