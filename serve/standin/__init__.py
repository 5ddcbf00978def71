"""The stand-in upstream: a family behind the wires of a large model, with a settable delay and price."""
