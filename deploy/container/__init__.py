"""What only containers need: their secrets, their health check, the operators' way in."""
