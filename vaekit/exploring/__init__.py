"""A page in the browser on which a run is looked into: sliders in the latent space, pictures dropped in, walks.

What a page asks of a run stands in `explorer`, `pictures` and `modalities`, and knows nothing of browsers; `page`,
`sliders` and `tabs` only wire it to gradio, and `server` keeps it on this machine.
"""
