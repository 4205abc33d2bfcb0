"""Files: what the client sends into rooms and fetches from them, over as many connections and runs as it takes."""
