"""Sets of speech and sounds whose words lie in other files than the sounds."""
