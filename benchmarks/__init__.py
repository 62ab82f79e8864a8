"""What we claim about speed and quality, as programs that print a table."""
