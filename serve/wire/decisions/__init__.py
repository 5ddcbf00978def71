"""The wire forms of decision endpoints: questions with closed answers about one input. No gateway, no I/O."""
