"""The routes of decision endpoints on the data plane; what no family here answers goes upstream."""
