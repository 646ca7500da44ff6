"""`genkit compare`: methods side by side on one teacher, under one budget, on one page."""
