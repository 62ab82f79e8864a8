"""Makes a float program integer: programs in, programs out."""
