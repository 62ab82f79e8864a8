"""An export that passed -> a signed folder that an app team can verify; one file per thing in it."""
