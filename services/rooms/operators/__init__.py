"""What operators see of rooms and do to them."""
