"""The web page: the tasks for those who do not type commands.

`shelf` holds the models that are offered, `desk` does the work in plain Python, with `goods` for what comes and goes
and `words` for the command and the Python call that do the same; `page` draws it with Gradio out of `parts`, and
`serve` runs it. Nothing is asked of the network.
"""
