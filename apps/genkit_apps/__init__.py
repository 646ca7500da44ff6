"""The Gradio app: `genkit demo` is a page where a teacher and its student do the same.

lanes.py opens a pipeline and knows how to call it, racing.py runs it and watches it draw, panels.py
turns what was made into HTML; these know no Gradio. drawing.py, listening.py and playing.py are the
tabs of pictures, sounds and worlds, demo.py is the page itself.
"""
