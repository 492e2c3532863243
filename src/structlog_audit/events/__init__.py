"""Values: events, their fields, their ids and their JSON."""
