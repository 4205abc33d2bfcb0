"""Files of rooms: offered, uploaded, verified, posted, fetched, and given up when their time is over."""
