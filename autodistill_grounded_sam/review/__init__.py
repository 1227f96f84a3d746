"""A person's time, well spent: a local page over a run. `queue` says what to look at first, `session` is what the page can ask,
`server` who may ask it, `page/` the page itself."""
