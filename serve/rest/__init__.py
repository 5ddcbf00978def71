"""The routes of the gateway that carry no load: health, models, what is refused, the page to read."""
