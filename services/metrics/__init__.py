"""metrics: receives what the other services count; writes statistics and draws graphs."""
