"""The only place that draws: HTML, Markdown, plots, economics and the decision."""
