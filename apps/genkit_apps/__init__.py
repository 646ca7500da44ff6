"""The Gradio app. It is not written yet: this package is empty until the app's issue lands."""
