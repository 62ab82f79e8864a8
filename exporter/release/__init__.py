"""Package a passed export as a signed folder that an app team can verify; one module per part of it."""
