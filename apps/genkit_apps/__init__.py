"""The Gradio app: `genkit demo` is a page where a teacher and its student draw the same prompt.

lanes.py opens a pipeline and knows how to call it, racing.py runs it and watches it draw, panels.py
turns what was drawn into HTML; these know no Gradio. demo.py is the page itself.
"""
